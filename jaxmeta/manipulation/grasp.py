"""The caging reward: fingers on both sides of an object, level with it, then closing.

Yu et al., Meta-World (CoRL 2019, arXiv 1910.10897), version 2 rewards.
"""

from typing import Literal

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar
from jaxmeta.manipulation.shaping import Point, both, distance, tolerance
from jaxmeta.manipulation.task import Episode, Readings

BESIDE = 0.05
"""A pad is beside the object up to this distance, metres."""


def caging(
    now: Readings,
    episode: Episode,
    action: Float[Array, "4"],
    object: Point,
    *,
    object_radius: float,
    pad_success: float,
    xz_threshold: float,
    reach_radius: float = 0.01,
    effort: float = 1.0,
    density: Literal["low", "medium", "high"] = "low",
) -> Scalar:
    """How well the object is caged and gripped, in [0, 1].

    Sideways (y) each pad should be within `pad_success` of the object but not within
    `object_radius`; in the plane of x and z the tips should be within `xz_threshold`.
    Closing the fingers counts once both hold (caging above .97). The margins are the
    distances at the start of the episode, so that the reward starts low everywhere.

    Args:
      now: the readings.
      episode: what is fixed; `episode.object` is where the object started.
      action: the action taken; the last is the grip.
      object: `[3]` the point to be grasped.
      object_radius: half of its width between the pads, metres.
      pad_success: metres.
      xz_threshold: metres.
      reach_radius: distance at which the tips have reached it, metres; read where
        `density` is "medium".
      effort: the grip at which closing counts fully.
      density: "low", caging and gripping; "high", their mean with caging alone;
        "medium", their mean with the reward for being near.
    """
    sides = []
    for pad in (now.left_pad, now.right_pad):
        apart = jnp.abs(pad[1] - object[1])
        margin = jnp.abs(jnp.abs(pad[1] - episode.object[1]) - pad_success)
        sides.append(
            tolerance(apart, (object_radius, pad_success), margin, "long_tail")
        )
    caged = both(both(*sides), _level(now, episode, object, xz_threshold))
    gripped = gripping(caged, action, effort)
    if density == "high":
        return (gripped + caged) / 2
    if density == "medium":
        margin = jnp.abs(distance(episode.object, episode.tcp) - reach_radius)
        near = tolerance(
            distance(object, now.tcp), (0.0, reach_radius), margin, "long_tail"
        )
        return (gripped + near) / 2
    return gripped


def gripping(caged: Scalar, action: Float[Array, "4"], effort: float = 1.0) -> Scalar:
    """How well what is caged is gripped: closing counts from a caging of .97.

    Args:
      caged: how well the object is caged, in [0, 1].
      action: the action taken; the last is the grip.
      effort: the grip at which closing counts fully.

    Example:
      >>> action = jnp.array([0.0, 0.0, 0.0, 0.5])
      >>> [float(gripping(jnp.array(x), action)) for x in (0.9, 1.0)]
      [0.0, 0.5]
    """
    closing = jnp.clip(action[3], 0.0, effort) / effort
    return both(caged, jnp.where(caged > 0.97, closing, 0.0))


def enclosing(
    now: Readings,
    episode: Episode,
    object: Point,
    *,
    object_radius: float,
    xz_threshold: float,
) -> Scalar:
    """How well the object is between the pads and level with them, in [0, 1].

    Unlike in `caging` each pad must be on its own side of the object, and the margins
    sideways are those of the present pads. (The official package means those of the
    start, but what it keeps is a view of the simulator's memory.)

    Args:
      now: the readings.
      episode: what is fixed.
      object: `[3]` the point to be grasped.
      object_radius: half of its width between the pads, metres.
      xz_threshold: metres.
    """
    between = _between(now, object, object_radius, BESIDE)
    return both(between, _level(now, episode, object, xz_threshold))


def pinching(
    now: Readings,
    episode: Episode,
    object: Point,
    *,
    object_radius: float,
    slack: float,
    xz_threshold: float,
) -> Scalar:
    """The mean of `enclosing` and, once that is above .95, of pads at the object.

    Args:
      now: the readings.
      episode: what is fixed.
      object: `[3]` the point to be grasped.
      object_radius: half of its width between the pads, metres.
      slack: up to this from its sides the pads are at the object, metres.
      xz_threshold: metres.
    """
    caged = enclosing(
        now, episode, object, object_radius=object_radius, xz_threshold=xz_threshold
    )
    at_it = _between(now, object, object_radius, object_radius + slack)
    return (caged + jnp.where(caged > 0.95, at_it, 0.0)) / 2


def caging_handle(
    now: Readings,
    episode: Episode,
    action: Float[Array, "4"],
    *,
    along: float,
    density: Literal["medium", "high"],
) -> Scalar:
    """`caging` of a thin handle along x, which may be gripped off its middle.

    Args:
      now: the readings; `now.object` is the middle of the handle.
      episode: what is fixed.
      action: the action taken.
      along: up to this far from the middle, metres, any place is as good.
      density: as in `caging`.
    """
    there = jnp.abs(now.object[0] - now.hand[0]) < along
    grip = now.object.at[0].set(jnp.where(there, now.hand[0], now.object[0]))
    return caging(
        now,
        episode,
        action,
        grip,
        object_radius=0.015,
        pad_success=0.02,
        xz_threshold=0.01,
        density=density,
    )


def holding(
    now: Readings, object: Point, start: Point, radius: float, height: float = 0.01
) -> Bool[Array, ""]:
    """Whether the object is at the tips and more than a height above its start.

    The fingers may not be fully shut, either.

    Args:
      now: the readings.
      object: `[3]` where it is gripped.
      start: `[3]` where it lay.
      radius: within this of the tips it is at them, metres.
      height: metres.
    """
    at_tips = distance(object, now.tcp) < radius
    return at_tips & (now.opening > 0) & (object[2] - height > start[2])


def carrying(grasped: Scalar, held: Bool[Array, ""], in_place: Scalar) -> Scalar:
    """Grasped *and* in place, with up to 6 more for bringing in place what is held.

    Args:
      grasped: how well it is grasped, in [0, 1]; fully if it is held.
      held: whether it is held.
      in_place: how near it is to where it belongs, in [0, 1].

    Example:
      >>> half = jnp.array(0.5)
      >>> [round(float(carrying(half, jnp.array(x), half)), 4) for x in (False, True)]
      [0.3333, 4.0]
    """
    wanted = both(jnp.where(held, 1.0, grasped), in_place)
    return wanted + jnp.where(held, 1.0 + 5.0 * in_place, 0.0)


def _between(now: Readings, object: Point, nearest: float, farthest: float) -> Scalar:
    """Whether both pads are beside the object, no nearer and no farther than this."""
    sides = []
    for apart in (now.left_pad[1] - object[1], object[1] - now.right_pad[1]):
        margin = jnp.abs(jnp.abs(apart) - BESIDE)
        sides.append(tolerance(apart, (nearest, farthest), margin, "long_tail"))
    return both(*sides)


def _level(now: Readings, episode: Episode, object: Point, threshold: float) -> Scalar:
    """Whether the tips are at the object in the plane of x and z."""
    xz = jnp.array([0, 2])
    return tolerance(
        distance(now.tcp[xz], object[xz]),
        (0.0, threshold),
        distance(episode.object[xz], episode.tcp[xz]) - threshold,
        "long_tail",
    )
