"""Metrics as (sum, count) pairs that merge exactly, and honest intervals.

A mean of means is wrong as soon as two groups differ in size. So a learner reports
sums and counts; they are added over tasks, devices and steps, and divided once.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxmeta.core.types import Array, Float, PyTree


class Mean(NamedTuple):
    """A running mean: `total / count`.

    Attributes:
      total: `[...]` sum of the values seen.
      count: `[...]` how many there were (a float, so that masks and weights add up).

    Example:
      >>> from jaxmeta.core.metrics import Mean, merge
      >>> a, b = Mean.of(jnp.array([1.0, 3.0])), Mean.of(jnp.array([8.0]))
      >>> float(merge(a, b).compute())
      4.0
    """

    total: Float[Array, "..."]
    count: Float[Array, "..."]

    @classmethod
    def of(cls, values: Array, mask: Array | None = None) -> "Mean":
        """The mean of `values`, over all axes; `mask` (same shape) picks some."""
        values = jnp.asarray(values, jnp.float32)
        mask = jnp.ones_like(values) if mask is None else mask.astype(values.dtype)
        # Padding may hold anything, nan included, and 0 * nan is nan.
        values = jnp.where(mask == 0, 0.0, values)
        return cls(jnp.sum(values * mask), jnp.sum(mask))

    def compute(self) -> Float[Array, "..."]:
        """`total / count`; nan where nothing was counted."""
        return self.total / self.count


Metrics: TypeAlias = Mapping[str, Mean]
"""What learners return: `{"loss": Mean, "accuracy": Mean}`."""

Values: TypeAlias = float | list
"""A metric on the host: a number, or nested lists of numbers and None."""


def merge(a, b):
    """Adds two metric trees of one structure.

    Example:
      >>> m = {"loss": Mean.of(jnp.array([2.0]))}
      >>> float(merge(m, m)["loss"].count)
      2.0
    """
    return jax.tree.map(jnp.add, a, b)


def sum_first_axis(tree: PyTree) -> PyTree:
    """Sums every leaf over its first axis: tasks, or steps.

    Example:
      >>> sum_first_axis({"a": jnp.array([1.0, 2.0])})["a"].item()
      3.0
    """
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree)


def to_values(metrics: Metrics, prefix: str = "") -> dict[str, Values]:
    """Metrics on the host as plain numbers.

    Args:
      metrics: sums and counts.
      prefix: put before names that have none of their own (`diagnostics/x` has one).

    Returns:
      A float a metric, nan where nothing was counted; for one that is an array nested
      lists to four digits, with None for what is not finite.

    Example:
      >>> to_values({"loss": Mean.of(jnp.array([1.0, 2.0]))}, "train/")
      {'train/loss': 1.5}
      >>> to_values({"a/norms": Mean(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]))})
      {'a/norms': [0.5, None]}
    """
    values = {}
    for name, mean in sorted(metrics.items()):
        value = np.asarray(mean.compute()).tolist()
        name = name if "/" in name else prefix + name
        values[name] = _short(value) if isinstance(value, list) else value
    return values


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.4g}") if math.isfinite(value) else None


def scalars(values: Mapping[str, Values]) -> dict[str, float]:
    """The numbers without the lists, for what draws curves or prints a line.

    Example:
      >>> scalars({"loss": 0.5, "diagnostics/norms": [1.0, 2.0]})
      {'loss': 0.5}
    """
    return {name: x for name, x in values.items() if not isinstance(x, list)}


class Interval(NamedTuple):
    """A mean with its 95 % interval and the extremes of what was averaged.

    Attributes:
      mean: the average.
      low: lower end of the two-sided 95 % Student-t interval of the mean.
      high: upper end.
      smallest: smallest value averaged.
      largest: largest value averaged. Which of the two is the *worst* task depends
        on the metric: the largest loss, the smallest accuracy.
      count: how many values.
    """

    mean: float
    low: float
    high: float
    smallest: float
    largest: float
    count: int


def interval_within(groups) -> Interval:
    """Mean of the groups' means, and its interval given the groups.

    `mean ± t sqrt(sum_g s_g^2 / n_g) / G`: the spread inside each group (the tasks of
    one training run) counts, the differences between groups do not.

    Args:
      groups: `G` sequences of finite numbers, each with at least one.

    Raises:
      ValueError: if there is no group or an empty one.

    Example:
      >>> interval_within([[1.0, 1.0], [3.0, 3.0]])[:3]
      (2.0, 2.0, 2.0)
    """
    spreads = [interval(values) for values in groups]
    pooled = interval(np.concatenate([np.ravel(values) for values in groups]))
    freedom = pooled.count - len(spreads)
    mean = float(np.mean([spread.mean for spread in spreads]))
    if freedom < 1:
        half = float("inf")
    else:
        variances = [np.var(v, ddof=1) / np.size(v) for v in groups if np.size(v) > 1]
        half = float(stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances)))
        half /= len(spreads)
    return pooled._replace(mean=mean, low=mean - half, high=mean + half)


def interval(values) -> Interval:
    """Mean and 95 % Student-t interval of independent values.

    `mean ± t_{0.975, n-1} s / sqrt(n)`. The spread says what was averaged: over tasks
    it is the spread of tasks, over seeds the spread of training runs. Never mix them.
    With one value the interval is the whole line.

    Args:
      values: `[n]` finite numbers, n >= 1.

    Raises:
      ValueError: if there is no value.

    Example:
      >>> interval([1.0, 2.0, 3.0])
      Interval(mean=2.0, low=-0.48..., high=4.48..., smallest=1.0, largest=3.0, count=3)
    """
    values = np.asarray(values, np.float64).ravel()
    if not values.size:
        raise ValueError("interval() needs at least one value, got none.")
    mean, n = float(values.mean()), int(values.size)
    if n == 1:
        half = float("inf")
    else:
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    low, high = mean - half, mean + half
    return Interval(mean, low, high, float(values.min()), float(values.max()), n)
