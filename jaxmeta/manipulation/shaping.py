"""The building blocks of the rewards: soft bounds, soft "and", and caging a grasp.

Tassa et al., DeepMind Control Suite (2018, arXiv 1801.00690), appendix, for
`tolerance`; Yu et al., Meta-World (CoRL 2019, arXiv 1910.10897), version 2 rewards, for
the rest. All are differentiable almost everywhere, and no finite argument makes a nan.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar

Sigmoid: TypeAlias = Literal["gaussian", "long_tail", "linear"]
Number: TypeAlias = float | Scalar
Point: TypeAlias = Float[Array, "3"]

AT_MARGIN = 0.1
"""What `tolerance` is at the margin, for those sigmoids that have a tail."""
NO_MARGIN = 1e-18
"""Margins are no less, so that what is divided by them has a gradient."""
NO_SQUARE = 1e-30
"""Nor are squares less of which the root is taken."""
SHOULDER = (0.0, 0.055, 0.07)
"""From the hand to the shoulder of the gripper, metres."""


def tolerance(
    x: Number,
    bounds: tuple[Number, Number] = (0.0, 0.0),
    margin: Number = 0.0,
    sigmoid: Sigmoid = "gaussian",
) -> Scalar:
    """1 within the bounds, falling to .1 at a distance of `margin` from them.

    With `d` the distance from the bounds over the margin: gaussian `.1^(d^2)`,
    long_tail `1 / (1 + 9 d^2)`, linear `max(0, 1 - .9 d)`. With a margin of 0 it is 0
    outside.

    Args:
      x: the quantity, in the unit of the bounds and of the margin.
      bounds: lowest and highest value with 1; either may be infinite.
      margin: whose sign does not matter.
      sigmoid: how it falls.

    Example:
      >>> round(float(tolerance(2.0, (0.0, 1.0), 1.0, "long_tail")), 4)
      0.1
    """
    low, high = bounds
    outside = jnp.maximum(jnp.maximum(low - x, x - high), 0.0)
    d = outside / jnp.maximum(jnp.abs(margin), NO_MARGIN)
    if sigmoid == "gaussian":
        return AT_MARGIN ** jnp.square(d)
    if sigmoid == "long_tail":
        return 1.0 / (1.0 + (1.0 / AT_MARGIN - 1.0) * jnp.square(d))
    return jnp.maximum(1.0 - (1.0 - AT_MARGIN) * d, 0.0)


def closeness(gap: Number, radius: Number, margin: Number) -> Scalar:
    """1 up to a distance of `radius`, with a long tail that is .1 at `margin` beyond.

    Args:
      gap: the distance, metres.
      radius: metres.
      margin: most often what the distance was at the start, metres.

    Example:
      >>> [round(float(closeness(x, 0.05, 0.5)), 4) for x in (0.05, 0.55)]
      [1.0, 0.1]
    """
    return tolerance(gap, (0.0, radius), margin, "long_tail")


def nearing(
    gap: Number, start: Number, radius: float, sigmoid: Sigmoid = "long_tail"
) -> Scalar:
    """1 up to a distance of `radius`, .1 at the distance that there was at the start.

    Args:
      gap: the distance, metres.
      start: what it was at the start, metres.
      radius: metres.
      sigmoid: how it falls.

    Example:
      >>> [round(float(nearing(x, 0.5, 0.05)), 4) for x in (0.05, 0.5)]
      [1.0, 0.1]
    """
    return tolerance(gap, (0.0, radius), jnp.abs(start - radius), sigmoid)


def shouldering(apart: Point, start: Point, scale: Point) -> Scalar:
    """`closeness` of the gripper's shoulder, which pushes instead of the fingers.

    Args:
      apart: `[3]` from what is pushed to the hand, metres.
      start: `[3]` the same at the start of the episode, for the margin.
      scale: `[3]` how much a distance counts along each axis.

    Example:
      >>> float(shouldering(-jnp.array(SHOULDER), jnp.ones(3), jnp.ones(3)))
      1.0
    """
    shoulder = jnp.array(SHOULDER)
    margin = length((start + shoulder) * scale)
    return closeness(length((apart + shoulder) * scale), 0.02, margin)


def both(a: Number, b: Number) -> Scalar:
    """The Hamacher product `a b / (a + b - a b)`, a soft "and" of numbers in [0, 1].

    Example:
      >>> round(float(both(0.5, 0.5)), 4), float(both(0.0, 0.0))
      (0.3333, 0.0)
    """
    product = jnp.asarray(a) * b
    # The gradient divides by the square of what this divides by.
    return product / jnp.maximum(a + b - product, 1e-12)


def distance(a: Array, b: Array) -> Scalar:
    """Euclidean distance, with a gradient of 0 where the points are the same.

    Example:
      >>> float(distance(jnp.zeros(3), jnp.array([3.0, 4.0, 0.0])))
      5.0
    """
    return length(a - b)


def length(x: Array) -> Scalar:
    """Euclidean norm, at least 1e-15, with a gradient of 0 at 0."""
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x)), NO_SQUARE))


def prism(point: Point, zero: Point, one: Point) -> Scalar:
    """0 at one corner of a box, 1 at the opposite one and everywhere outside.

    Inside it is the product over the axes of how far the point is from `zero` to `one`.

    Args:
      point: `[3]` metres.
      zero: `[3]` the corner with 0.
      one: `[3]` the corner with 1.

    Example:
      >>> float(prism(jnp.full(3, 0.5), jnp.zeros(3), jnp.ones(3)))
      0.125
    """
    low, high = jnp.minimum(zero, one), jnp.maximum(zero, one)
    inside = ((low <= point) & (point <= high)).all()
    span = one - zero
    share = (point - zero) / jnp.where(span == 0, 1.0, span)
    return jnp.where(inside, jnp.prod(share), 1.0)


def funnel(radius: Number, threshold: float, scale: float, level: float) -> Scalar:
    """Least height at which the hand may be: 0 near the object, rising outside.

    `scale log(radius - threshold) + level` metres outside the threshold.

    Args:
      radius: horizontal distance from the object, metres.
      threshold: within it the floor is 0, metres.
      scale: metres per unit of the logarithm.
      level: metres.

    Example:
      >>> float(funnel(0.01, 0.02, 0.015, 0.15)), float(funnel(1.02, 0.02, 0.015, 0.15))
      (0.0, 0.15...)
    """
    outside = radius > threshold
    above = jnp.where(outside, radius - threshold, 1.0)
    return jnp.where(outside, scale * jnp.log(above) + level, 0.0)


def above(height: Number, floor: Number, margin: Number) -> Scalar:
    """1 down to 1 cm below a floor as of `funnel`, with a long tail further down.

    Args:
      height: of the hand, metres.
      floor: metres.
      margin: at this depth, and that 1 cm, it is .1, metres.

    Example:
      >>> [round(float(above(x, 0.2, 0.05)), 4) for x in (0.3, 0.195, 0.14)]
      [1.0, 1.0, 0.1]
    """
    return closeness(jnp.maximum(floor - height, 0.0), 0.01, margin)


def lifted_and_placed(
    lifted: Bool[Array, ""],
    gap: Number,
    radius: float,
    margin: float,
    trying: float = 0.1,
) -> Scalar:
    """A little for having lifted something, the rest for having it where it belongs.

    Args:
      lifted: whether it is off the table.
      gap: its distance from where it belongs, metres.
      radius: up to this distance it is there, metres.
      margin: at this distance from the radius it is .1, metres.
      trying: what lifting is worth, out of 1.

    Example:
      >>> round(float(lifted_and_placed(jnp.array(True), 0.42, 0.02, 0.4)), 4)
      0.19
    """
    placed = closeness(gap, radius, margin)
    return trying * jnp.where(lifted, 1.0, 0.0) + (1 - trying) * placed


def aligned(
    quat: Float[Array, "4"], ideal: tuple[float, float, float, float], off: float
) -> Scalar:
    """1 at the ideal orientation, falling to 0 where the quaternions are `off` apart.

    Quaternions of opposite sign are the same orientation but far apart here, as they
    are officially.

    Example:
      >>> float(aligned(jnp.array([1.0, 0.1, 0.0, 0.0]), (1.0, 0.0, 0.0, 0.0), 0.4))
      0.75
    """
    return jnp.maximum(1.0 - distance(quat, jnp.array(ideal)) / off, 0.0)
