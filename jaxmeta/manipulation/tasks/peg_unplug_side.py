"""Pull a plug sideways out of a socket.

`vector` is where the block with the socket stands. `object` is the end of the plug that
sticks out. `landmark` and `joint` are not read. Yu et al., Meta-World (CoRL 2019),
rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.scene import At, Box, Capsule, Geometry, placed
from jaxmeta.manipulation.shaping import closeness, distance
from jaxmeta.manipulation.shaping_v1 import closing, descending, reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

PLUGGED = (0.044, 0.0, 0.131)
"""From the foot of the block to the plug when it is in, metres."""
OUT = (0.15, 0.0, 0.0)
"""From there to the goal, metres."""
RADIUS = 0.05
"""Within this of the goal, in metres, the plug's end earns the full reward."""
SOLVED = 0.07
"""Within this of the goal, in metres, the task is solved."""

# Its head, in the socket, the flange, the shaft and the end. The flange is officially a
# disc of radius 45 mm. The head is 8 mm too thick for its socket. Officially that holds
# it from four sides, here from above and below, with a quarter more friction.
PLUG = (
    Capsule(0.03, pos=(-0.035, 0.0, 0.0), mass=0.05),
    Box((0.007, 0.04, 0.04), (-0.013, 0.0, 0.0), mass=0.01),
    Box((0.035, 0.038, 0.038), (0.025, 0.0, 0.0), mass=0.01),
    Capsule(0.04, pos=(0.06, 0.0, 0.0), mass=0.01),
)
END = (0.04, 0.0, 0.0)
"""The observed point of the plug, in its frame, metres."""
SOCKET = (
    Box((0.025, 0.0345, 0.022), (0.0, 0.0655, 0.131)),
    Box((0.025, 0.1, 0.023), (0.0, 0.0, 0.176)),
    Box((0.025, 0.1, 0.055), (0.0, 0.0, 0.054)),
    Box((0.025, 0.0345, 0.022), (0.0, -0.0655, 0.131)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PegUnplugSide(ManipulationTask):
    """Grip the plug's end and pull it along x."""

    name = "peg-unplug-side"
    low = (-0.25, 0.6, -0.001)
    high = (-0.15, 0.8, 0.001)
    goal_low = (-0.056, 0.6, 0.13)
    goal_high = (0.044, 0.8, 0.132)
    geometry = Geometry(free=PLUG, fixed=SOCKET, friction=1.25)
    object_at = At("free", END)

    def place(self, vector):
        return placed(fixture=vector, free=vector + jnp.array(PLUGGED))

    def begin(self, vector, first, tcp):
        plug = vector + jnp.array(PLUGGED)
        return Episode(plug + jnp.array(OUT), first.object, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        left = distance(now.object, episode.target)
        grasped = caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.025,
            pad_success=0.05,
            xz_threshold=0.005,
            effort=0.8,
            density="high",
        )
        margin = distance(episode.object, episode.target)
        in_place = closeness(left, RADIUS, margin)
        moved = now.object[0] - episode.object[0] > 0.015
        at_tips = distance(now.object, now.tcp) < 0.035
        pulled = (now.opening > 0.5) & moved & at_tips
        total = 2.0 * grasped + jnp.where(pulled, 1.0 + 5.0 * in_place, 0.0)
        terms = {"grasped": grasped, "in_place": in_place}
        return Reward(jnp.where(left <= RADIUS, 10.0, total), terms)

    def reward_v1(self, now, episode, action):
        apart = distance(now.object, now.tcp)
        reach = closing(apart, action) - descending(
            now.tcp, now.object, self.hand_start[2], weight=2.0
        )
        # Officially only the way left ignores heights, not that at the start.
        left = distance(now.object[:2], episode.target[:2])
        start = distance(episode.object, episode.target)
        pull = reach_then("pull", apart, left, start).terms["pull"]
        return Reward(reach + pull, {"reach": reach, "pull": pull})

    def success(self, now, episode):
        return distance(now.object, episode.target) <= SOLVED
