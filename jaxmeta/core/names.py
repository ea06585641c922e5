"""What a misspelled name may have meant."""

import difflib
from collections.abc import Iterable

MOST = 3
"""So many names are suggested at most."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A question that suggests what comes nearest, whatever its case.

    Args:
      name: what was given.
      known: what there is.
      otherwise: said where nothing is near.

    Example:
      >>> did_you_mean("mt5", ["MT1", "MT50", "reach"])
      "did you mean 'MT50' or 'MT1'?"
      >>> did_you_mean("zzz", ["MT1", "MT50"], "there are two.")
      'there are two.'
    """
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=MOST)
    if not near:
        return otherwise
    *others, last = (repr(by_lower[one]) for one in near)
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
