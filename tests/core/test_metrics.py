"""Sums and counts that merge exactly, and intervals from a table of Student's t."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Mean
from jaxmeta.core.metrics import interval, merge, scalars, sum_first_axis, to_values


def test_merging_groups_of_different_size_is_not_a_mean_of_means():
    a, b = Mean.of(jnp.array([1.0, 3.0])), Mean.of(jnp.array([8.0]))
    assert float(merge(a, b).compute()) == 4.0


def test_a_mask_picks_what_counts():
    mean = Mean.of(jnp.array([[1.0, 3.0], [5.0, 7.0]]), jnp.array([[1, 0], [0, 1]]))
    assert (float(mean.total), float(mean.count)) == (8.0, 2.0)


@pytest.mark.parametrize("padding", [np.nan, np.inf])
def test_what_a_mask_leaves_out_may_be_anything(padding):
    mean = Mean.of(jnp.array([2.0, padding]), jnp.array([True, False]))
    assert float(mean.compute()) == 2.0


def test_booleans_and_integers_are_counted():
    assert float(Mean.of(jnp.array([True, False, True, True])).compute()) == 0.75
    assert float(Mean.of(jnp.array([1, 2])).compute()) == 1.5


def test_half_precision_values_are_summed_in_float32():
    # 4096 ones in bfloat16 would stop at 256.
    mean = Mean.of(jnp.ones(4096, jnp.bfloat16))
    assert mean.total.dtype == jnp.float32
    assert float(mean.total) == 4096.0


def test_nothing_counted_is_nan():
    assert np.isnan(Mean.of(jnp.zeros(0)).compute())


def test_sum_first_axis_sums_every_leaf():
    metrics = {"loss": Mean(jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0]))}
    summed = sum_first_axis(metrics)
    assert float(summed["loss"].compute()) == 0.75


def test_to_values_is_sorted_and_prefixed():
    values = {"b": Mean.of(jnp.ones(1)), "a": Mean.of(jnp.zeros(1))}
    assert list(to_values(values, "train/").items()) == [
        ("train/a", 0.0),
        ("train/b", 1.0),
    ]


def test_to_values_leaves_a_name_with_a_prefix_of_its_own():
    values = {"diagnostics/a": Mean.of(jnp.ones(1)), "loss": Mean.of(jnp.zeros(1))}
    assert to_values(values, "train/") == {"diagnostics/a": 1.0, "train/loss": 0.0}


def test_to_values_keeps_all_digits_of_a_number_and_its_nan():
    third = jnp.float32(1 / 3)
    values = to_values({"a": Mean.of(third), "nothing": Mean.of(jnp.zeros(0))})
    assert type(values["a"]) is float
    assert np.float32(values["a"]) == third
    assert np.isnan(values["nothing"])


def test_to_values_makes_nested_lists_of_four_digits():
    total = jnp.array([[12345.678, -0.00123456], [0.0, 2.0]])
    mean = Mean(total, jnp.array([[1.0, 1.0], [1.0, 4.0]]))
    assert to_values({"a": mean})["a"] == [[12350.0, -0.001235], [0.0, 0.5]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_to_values_has_none_for_what_is_not_finite_in_a_list(bad):
    mean = Mean(jnp.array([[1.0, bad]]), jnp.ones((1, 2)))
    assert to_values({"a": mean}, "train/") == {"train/a": [[1.0, None]]}


def test_to_values_has_none_where_a_list_counted_nothing():
    mean = Mean(jnp.array([0.0, 3.0]), jnp.array([0.0, 2.0]))
    assert to_values({"a": mean}) == {"a": [None, 1.5]}


def test_to_values_of_an_empty_array_is_an_empty_list():
    assert to_values({"a": Mean(jnp.zeros(0), jnp.zeros(0))}) == {"a": []}


def test_scalars_are_the_numbers_without_the_lists():
    values = {"a": 1.0, "b": [1.0], "c": [[None]], "d": float("inf"), "e": []}
    assert scalars(values) == {"a": 1.0, "d": float("inf")}


# 97.5 % quantiles of Student's t with n - 1 degrees of freedom, from a printed table.
@pytest.mark.parametrize(
    ("values", "t"),
    [([1.0, 3.0], 12.706), ([1.0, 2.0, 3.0], 4.303), (list(range(11)), 2.228)],
)
def test_interval_by_the_table_of_t(values, t):
    n = len(values)
    half = t * np.std(values, ddof=1) / np.sqrt(n)
    found = interval(values)
    assert found.mean == np.mean(values)
    # The table has four digits.
    np.testing.assert_allclose(found.high - found.mean, half, rtol=2e-4)
    np.testing.assert_allclose(found.mean - found.low, half, rtol=2e-4)
    assert (found.smallest, found.largest, found.count) == (min(values), max(values), n)


def test_one_value_has_the_whole_line_as_interval():
    assert interval([2.0])[:3] == (2.0, -np.inf, np.inf)


def test_equal_values_have_no_spread():
    assert interval(np.full(5, 3.0, np.float32))[:3] == (3.0, 3.0, 3.0)


def test_no_value_has_no_interval():
    with pytest.raises(ValueError, match="at least one value"):
        interval([])
