"""`jaxmeta list`."""

import shutil
import textwrap

from jaxmeta.options import ListOptions, parse


def run(argv: list[str]) -> None:
    """Prints every experiment and table."""
    from jaxmeta.core import catalogue

    parse(ListOptions, argv, "jaxmeta list")
    width = max(40, shutil.get_terminal_size().columns)
    wrap = lambda text, first, rest: print(
        textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest)
    )
    for i, entry in enumerate(catalogue.entries()):
        if i:
            print()
        wrap(f"{entry.name}  ({entry.kind}; {entry.cost})", "", "    ")
        wrap(entry.what, "    ", "    ")
        wrap(entry.paper, "    ", "    ")
