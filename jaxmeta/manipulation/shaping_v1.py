"""The building blocks of the version 1 rewards: reach, perhaps pick, then bring nearer.

Unlike those of version 2 these rewards have no common scale: reaching is worth minus a
distance in metres, what follows up to some thousand, and jumps where it begins to
count. Yu et al., Meta-World (CoRL 2019, arXiv 1910.10897), version 1 rewards.
"""

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar
from jaxmeta.manipulation.sensors import PAD_TO_CLAW
from jaxmeta.manipulation.shaping import Number, Point, distance, length
from jaxmeta.manipulation.task import Episode, Readings, Reward

REACHED = 0.05
"""Within this the fingers have reached something, metres."""
HELD = 0.1
"""Farther than this from the fingers nothing counts as held, metres."""
WIDTHS = (0.01, 0.001)
"""Of the two peaks of `progress`, square metres."""


def progress(
    gap: Number,
    start: Number,
    *,
    slope: float = 1000.0,
    peak: float = 1000.0,
    widths: tuple[float, float] = WIDTHS,
) -> Scalar:
    """What it is worth to bring something nearer; negative farther off than the start.

    `slope (start - gap) + peak (exp(-gap^2 / w_1) + exp(-gap^2 / w_2))`.

    Args:
      gap: what is left, metres.
      start: what there was at the start, or about that, metres.
      slope: worth of a metre.
      peak: worth of each peak at the goal.
      widths: `w_1` and `w_2`, square metres.

    Example:
      >>> float(progress(0.0, 0.5)), float(progress(2.0, 0.5))
      (2500.0, -1500.0)
    """
    broad, narrow = (jnp.exp(-jnp.square(gap) / width) for width in widths)
    return slope * (start - gap) + peak * (broad + narrow)


def reach_then(
    term: str,
    apart: Scalar,
    gap: Scalar,
    start: Number,
    widths: tuple[float, float] = WIDTHS,
    least: float = 0.0,
) -> Reward:
    """Minus the distance to the object and, once reached, `progress`.

    Args:
      term: what is done once the object is reached: push, pull, press.
      apart: from the fingers to the object, metres.
      gap: what is left to do, metres.
      start: what there was to do, metres.
      widths: as in `progress`.
      least: `progress` counts for no less than this.

    Example:
      >>> apart = [jnp.array(x) for x in (0.25, 0.0)]
      >>> [float(reach_then("pull", x, jnp.array(0.0), 0.5).total) for x in apart]
      [-0.25, 2500.0]
    """
    made = jnp.maximum(progress(gap, start, widths=widths), least)
    made = jnp.where(apart < REACHED, made, 0.0)
    return Reward(made - apart, {"reach": -apart, term: made})


def descending(
    tcp: Point, point: Point, level: Number, *, radius: float = REACHED, weight: float
) -> Scalar:
    """The distance left to a point for fingers that should come down on it, metres.

    Until they are above the point it is the horizontal one, and leaving the level
    costs.

    Args:
      tcp: `[3]` where the fingers are, metres.
      point: `[3]` metres.
      level: the height that the fingers should keep on the way, metres.
      radius: horizontally within this they are above the point, metres.
      weight: how much a distance from the level counts.

    Example:
      >>> tcp, point = jnp.array([0.3, 0.0, 0.2]), jnp.zeros(3)
      >>> round(float(descending(tcp, point, 0.15, weight=2.0)), 4)
      0.4
    """
    flat = distance(tcp[:2], point[:2])
    off = jnp.abs(tcp[2] - level)
    return jnp.where(flat < radius, distance(tcp, point), flat + weight * off)


def closing(
    apart: Scalar, action: Float[Array, "4"], radius: float = REACHED
) -> Scalar:
    """Up to .02 for closing the fingers within a radius of the object, metres."""
    return jnp.where(apart < radius, jnp.maximum(action[3], 0.0) / 50, 0.0)


def lifted(height: Scalar, rest: Number, lift: float) -> Bool[Array, ""]:
    """Whether something is at most 1 cm short of where it is to be lifted to.

    Args:
      height: where it is, metres.
      rest: where it was at the start, metres.
      lift: how far it is to be lifted, metres.
    """
    return height >= rest + lift - 0.01


def picking(
    height: Scalar,
    rest: Number,
    lift: float,
    *,
    near: Bool[Array, ""],
    done: Bool[Array, ""],
    floor: Number = 0.0,
) -> Scalar:
    """100 for each metre of height, once something is 5 mm off its rest.

    Args:
      height: where it is, metres.
      rest: where it was at the start, metres.
      lift: how far it is to be lifted, metres; more is worth nothing.
      near: whether the fingers are near it, else being off its rest is worth nothing.
      done: whether it is lifted, which is worth all, near or not.
      floor: from where height counts, metres.

    Example:
      >>> yes, no = jnp.array(True), jnp.array(False)
      >>> [round(float(picking(jnp.array(x), 0.02, 0.1, near=yes, done=no)), 4)
      ...  for x in (0.022, 0.07, 0.2)]
      [0.0, 7.0, 12.0]
    """
    raised = jnp.where(done, rest + lift, jnp.minimum(rest + lift, height))
    counts = done | (near & (height > rest + 0.005))
    return jnp.where(counts, 100.0 * (raised - floor), 0.0)


def pick_and_place(
    now: Readings,
    episode: Episode,
    action: Float[Array, "4"],
    *,
    rest: Number,
    lift: float,
    gap: Scalar,
    weight: float = 2.0,
    floor: Number = 0.0,
) -> Reward:
    """Come down on the main object, lift it and, once lifted, bring it to the goal.

    Args:
      now: the readings.
      episode: what is fixed.
      action: the action taken; the last is the grip.
      rest: height at which the object starts, metres.
      lift: how far it is to be lifted, metres.
      gap: what is left to the goal, metres.
      weight: as in `descending`.
      floor: as in `picking`.
    """
    apart = distance(now.object, now.tcp)
    reach = closing(apart, action) - descending(
        now.tcp, now.object, episode.tcp[2], weight=weight
    )
    done = lifted(now.object[2], rest, lift)
    near = apart < HELD
    pick = picking(now.object[2], rest, lift, near=near, done=done, floor=floor)
    made = jnp.maximum(progress(gap, longest(episode, rest + lift)), 0.0)
    place = jnp.where(done & near, made, 0.0)
    return Reward(reach + pick + place, {"reach": reach, "pick": pick, "place": place})


def longest(episode: Episode, top: Number) -> Scalar:
    """The way of the object through this height above its start to the goal, metres.

    Officially the height itself, not that above the start, is the way up.
    """
    return distance(episode.object.at[2].set(top), episode.target) + top


def left_tip(now: Readings) -> Point:
    """The tip of the left finger, which some tasks take for both, metres."""
    across = now.left_pad - now.right_pad
    return now.tcp + across * (0.5 + PAD_TO_CLAW / length(across))
