"""The caging reward: fingers on both sides of an object, level with it, then closing.

Yu et al., Meta-World (CoRL 2019, arXiv 1910.10897), version 2 rewards.
"""

from typing import Literal

import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Scalar
from jaxmeta.manipulation.shaping import Point, both, choose, distance, tolerance
from jaxmeta.manipulation.task import Episode, Readings


def caging(
    now: Readings,
    episode: Episode,
    action: Float[Array, "4"],
    object: Point,
    *,
    object_radius: float,
    pad_success: float,
    reach_radius: float,
    xz_threshold: float,
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
      reach_radius: distance at which the tips have reached it, metres ("medium").
      xz_threshold: metres.
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
    xz = jnp.array([0, 2])
    level = tolerance(
        distance(now.tcp[xz], object[xz]),
        (0.0, xz_threshold),
        distance(episode.object[xz], episode.tcp[xz]) - xz_threshold,
        "long_tail",
    )
    caged = both(both(*sides), level)
    closing = jnp.clip(action[3], 0.0, effort) / effort
    gripped = both(caged, choose(caged > 0.97, closing, 0.0))
    if density == "high":
        return (gripped + caged) / 2
    if density == "medium":
        margin = jnp.abs(distance(episode.object, episode.tcp) - reach_radius)
        near = tolerance(
            distance(object, now.tcp), (0.0, reach_radius), margin, "long_tail"
        )
        return (gripped + near) / 2
    return gripped
