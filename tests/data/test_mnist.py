import numpy as np
import pytest

from jaxmeta.data.mnist import load_mnist
from jaxmeta.data.source import DataError


def test_both_parts_in_order(tmp_path):
    arrays = {
        "x_train": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
        "y_train": np.array([9, 0, 5], np.uint8),
        "x_test": np.full((1, 2, 2), 255, np.uint8),
        "y_test": np.array([7], np.uint8),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    for found, expected in zip(
        load_mnist(tmp_path / "a.npz"), arrays.values(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(DataError, match="at least 4 square images"):
        load_mnist(tmp_path / "a.npz", least_train=4)
