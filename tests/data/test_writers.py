import numpy as np
import pytest

from jaxmeta.data.source import DataError
from jaxmeta.data.writers import split_writers

IDS = np.array([30, 7, 7, 12, 99, 30, 41, 7])  # 5 writers


def test_everybody_is_in_one_split():
    found = split_writers(IDS, validation=1, test=2, seed=0)
    assert {split: len(ids) for split, ids in found.items()} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }
    assert sorted(np.concatenate(list(found.values()))) == [7, 12, 30, 41, 99]
    for ids in found.values():
        assert ids.tolist() == sorted(ids.tolist())


def test_the_draw_depends_on_the_seed_and_on_who_there_is():
    draw = lambda ids, seed: split_writers(ids, validation=1, test=2, seed=seed)
    same = draw(IDS[::-1], 0)
    for split, ids in draw(IDS, 0).items():
        np.testing.assert_array_equal(ids, same[split])
    tests = {tuple(draw(IDS, seed)["test"].tolist()) for seed in range(20)}
    assert len(tests) > 5


def test_nobody_left_to_train():
    with pytest.raises(
        DataError, match="2 writers to validate and 3 to test leave non"
    ):
        split_writers(IDS, validation=2, test=3, seed=0)
