"""Splitting by writer: whoever is tested was never seen in training."""

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data.source import DataError


def split_writers(
    writers: np.ndarray, *, validation: int, test: int, seed: int
) -> dict[Split, np.ndarray]:
    """Deals writers out at random: some to validate, some to test, the rest to train.

    Args:
      writers: ids, in any order and as often as you like.
      validation: how many validate, >= 1.
      test: how many test, >= 1.
      seed: of the draw.

    Returns:
      Ids by split, ascending. Id i of a split is the group i of `group_points`.

    Raises:
      DataError: if nobody is left to train.

    Example:
      >>> found = split_writers(np.arange(5), validation=1, test=2, seed=0)
      >>> {split: ids.tolist() for split, ids in found.items()}
      {'train': [0, 1], 'validation': [3], 'test': [2, 4]}
    """
    order = np.random.default_rng(seed).permutation(np.unique(writers))
    held_out = validation + test
    if len(order) <= held_out:
        raise DataError(
            f"{validation} writers to validate and {test} to test leave none of "
            f"{len(order)} to train; hold out fewer."
        )
    return {
        "train": np.sort(order[held_out:]),
        "validation": np.sort(order[test:held_out]),
        "test": np.sort(order[:test]),
    }
