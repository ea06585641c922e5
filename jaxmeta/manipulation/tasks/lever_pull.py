"""Lift a lever until it points straight up.

`vector` is the lever's position, `object` is its end and `joint` its angle: 0 is level
and towards the robot, -pi / 2 straight up. `landmark` is not read. Yu et al.,
Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.scene import (
    ALONG_X,
    ALONG_Y,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    placed,
)
from jaxmeta.manipulation.shaping import (
    both,
    closeness,
    distance,
    length,
    shouldering,
)
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

AXIS = (0.12, 0.0, 0.25)
"""What the lever turns about, seen from `vector`, metres."""
LENGTH = 0.2
"""From there to its end, metres."""
SCALE = (4.0, 1.0, 4.0)
"""How much a distance counts along each axis: first below the lever, then up to it."""

# The stand's round top and the hub are officially cylinders along x, here boxes of the
# same length and cross section; axle and arm are cylinders, here capsules as thick.
STAND = (
    Box((0.041, 0.083, 0.125), (0.0, 0.0, 0.125)),
    Box((0.041, 0.0736, 0.0736), (0.0, 0.0, 0.25)),
    Box((0.05, 0.092, 0.013), (0.0, 0.0, 0.013)),
)
LEVER = (
    Box((0.016, 0.0337, 0.0337), mass=0.001),
    Capsule(0.016, 0.03, (-0.025, 0.0, 0.0), ALONG_X, 0.001),
    Capsule(0.012, 0.1, (0.0, -0.091, 0.0), ALONG_Y, 0.001),
    Capsule(0.03, pos=(0.0, -LENGTH, 0.0), mass=0.001),
)
"""Hub, axle, arm and the ball at its end."""
# It is solved at -1.44, far beyond a limit that gives way.
HINGE = Joint((1.0, 0.0, 0.0), 0.0, 1.57, damping=2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeverPull(ManipulationTask):
    """The shoulder of the gripper goes under the lever's end and lifts it."""

    name = "lever-pull"
    hand_start = (0.0, 0.4, 0.2)
    hand_low = (-0.5, 0.40, -0.15)
    low = (-0.1, 0.7, 0.0)
    high = (0.1, 0.8, 0.0)
    goal_low, goal_high = hand_low, ManipulationTask.hand_high
    quat_order = "xyzw"
    geometry = Geometry(fixed=STAND, mechanism=LEVER, mechanism_pos=AXIS, hinge=HINGE)
    object_at = At(
        "mechanism", (0.0, -LENGTH, 0.0), (0.6625, 0.6625, -0.247171, 0.247171)
    )

    def place(self, vector):
        return placed(fixture=vector)

    def begin(self, vector, first, tcp):
        del first
        axis = vector + jnp.array(AXIS)
        level = axis - jnp.array([0.0, LENGTH, 0.0])
        return Episode(axis + jnp.array([0.0, 0.0, LENGTH]), level, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        ready = shouldering(
            now.hand - now.object, episode.tcp - episode.object, jnp.array(SCALE)
        )
        start = distance(episode.object, episode.target)
        lifted = closeness(distance(now.object, episode.target), 0.04, start)
        return Reward(10.0 * both(ready, lifted), {"ready": ready, "lifted": lifted})

    def reward_v1(self, now, episode, action):
        del action
        # Officially the way begins at the lever's foot, not at its end.
        way = length(jnp.array(AXIS).at[2].add(LENGTH))
        left = distance(now.object, episode.target)
        return reach_then("pull", distance(now.object, now.tcp), left, way)

    def success(self, now, episode):
        del episode
        return jnp.abs(now.joint + jnp.pi / 2) <= jnp.pi / 24
