"""Push or pull a thermos flask with a stick.

`vector` is where the stick starts and the goal; both heights are fixed and not read
from it. `object` is the middle of the stick, `second` the flask's handle, `landmark`
the far end of the stick. `joint` is not read. Yu et al., Meta-World (CoRL 2019),
rewards of versions 2 and 1.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.contact import Material
from jaxmeta.manipulation.grasp import caging, holding
from jaxmeta.manipulation.observation import frame, layout_of
from jaxmeta.manipulation.scene import At, Box, Capsule, Geometry, Joint, placed
from jaxmeta.manipulation.shaping import both, closeness, distance, length
from jaxmeta.manipulation.shaping_v1 import (
    HELD,
    WIDTHS,
    closing,
    lifted,
    longest,
    picking,
    progress,
)
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

LYING = 0.02
"""Height of the stick on the table, metres."""
FLASK = (0.2, 0.6, 0.0)
"""Foot of the flask before it is placed, metres; the margins are taken from here."""
SOLVED = 0.12
"""Within this of the goal, in metres, the flask's handle has arrived."""
AT_TIPS = 0.02
"""Within this of the tips, in metres, the stick can be held."""

STICK = Box((0.05, 0.02, 0.02), mass=0.02)
END = (0.05, 0.0, 0.0)
"""The far end of the stick, in its frame, metres."""
# The flask, officially two cylinders, a disc and a cap, is one capsule of the radius of
# its body, down through the table and up into the cap. Its handle is as official.
THERMOS = (
    Capsule(0.06, 0.1, (0.0, 0.0, 0.14), mass=3.2086),
    Box((0.01, 0.005, 0.068), (0.0, -0.135, 0.132), mass=0.0272),
    Box((0.01, 0.04, 0.005), (0.0, -0.09, 0.195), mass=0.016),
    Box((0.01, 0.04, 0.005), (0.0, -0.09, 0.069), mass=0.016),
)
RAILS = (
    Joint((1.0, 0.0, 0.0), -0.2, 0.2),
    Joint((0.0, 1.0, 0.0), -0.2, 0.2),
)
IN_HANDLE = (0.0, -0.09, 0.132)
"""The middle of the handle's opening, in the flask's frame, metres."""


class Stick(ManipulationTask):
    """Grip the stick and move the flask with it.

    `episode.object` is where the stick starts, `episode.landmark` is `FLASK`.

    Attributes:
      goal_height: height of the goal, metres.
      moved: how far from `FLASK` the flask starts along y, metres.
      widths: of the peaks at the goal in the version 1 reward, square metres.
    """

    quat_order = "xyzw"
    geometry = Geometry(
        free=(STICK,),
        mechanism=THERMOS,
        slides=RAILS,
        free_of=Material(0.02, 0.998, 0.998, 0.001, box=True),
    )
    object_at = At("free")
    goal_height: ClassVar[float]
    moved: ClassVar[float]
    widths: ClassVar[tuple[float, float]] = WIDTHS

    def place(self, vector):
        return placed(
            fixture=FLASK,
            free=jnp.append(vector[:2], LYING),
            joints=(0.0, self.moved, 0.0),
        )

    def accepts(self, vector):
        return distance(vector[:2], vector[3:5]) >= 0.1

    def begin(self, vector, first, tcp):
        del first
        target = jnp.append(vector[3:5], self.goal_height)
        start = jnp.append(vector[:2], LYING)
        return Episode(target, start, tcp, jnp.array(FLASK))

    def reward_v1(self, now, episode, action):
        stick, rest, lift = now.object, episode.object[2], 0.04
        # Officially the flask is read from the wrong places of the observation: what is
        # there is the stick's height and two numbers of its orientation.
        flask = frame(layout_of(self), now)[6:9]
        apart, gap = distance(stick, now.tcp), distance(stick, flask)
        reach = closing(apart, action) - apart
        done, near = lifted(stick[2], rest, lift), apart < HELD
        pick = picking(stick[2], rest, lift, near=near, done=done)
        # From the flask's foot to the stick.
        way = episode._replace(object=episode.landmark, target=episode.object)
        to_flask = progress(gap, longest(way, rest + lift))
        to_goal = progress(
            distance(flask[:2], episode.target[:2]),
            distance(episode.landmark[:2], episode.target[:2]),
            peak=2000.0,
            widths=self.widths,
        )
        made = jnp.maximum(to_flask + jnp.where(gap < 0.05, to_goal, 0.0), 0.0)
        place = jnp.where(done & near, made, 0.0)
        terms = {"reach": reach, "pick": pick, "place": place}
        return Reward(reach + pick + place, terms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StickPush(Stick):
    """Away from the hand; solved only while both pads press on the lifted stick."""

    name = "stick-push"
    low = (-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319)
    high = (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321)
    goal_low, goal_high = low[3:], high[3:]
    goal_height = 0.132
    moved = 0.0
    widths = (0.001, 0.0001)
    second_at = At("mechanism", (0.0, 0.0, 0.132))

    def reward(self, now, episode, action):
        stick = now.object + jnp.array([0.015, 0.0, 0.0])
        target = episode.target
        margin = distance(episode.object, target) - SOLVED
        stick_near = closeness(distance(stick, target), SOLVED, margin)
        left = distance(now.second, target)
        margin = distance(episode.landmark, target) - SOLVED
        flask_near = closeness(left, SOLVED, margin)
        grasped = caging(
            now,
            episode,
            action,
            stick,
            object_radius=0.04,
            pad_success=0.05,
            xz_threshold=0.01,
            density="high",
        )
        pushed = 2.0 + 5.0 * stick_near + 3.0 * flask_near
        pushed = jnp.where(left <= SOLVED, 10.0, pushed)
        held = holding(now, stick, episode.object, AT_TIPS)
        terms = {
            "grasped": grasped,
            "stick_near": stick_near,
            "flask_near": flask_near,
        }
        return Reward(jnp.where(held, pushed, grasped), terms)

    def success(self, now, episode):
        gripped = (now.pad_forces > 0).all() & (now.opening > 0)
        lifted = now.object[2] - 0.01 > episode.object[2]
        there = distance(now.second, episode.target) <= SOLVED
        return there & gripped & lifted


@dataclasses.dataclass(frozen=True, kw_only=True)
class StickPull(Stick):
    """Towards the hand, with the stick through the flask's handle."""

    name = "stick-pull"
    hand_low = (-0.5, 0.35, 0.05)
    low = (-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199)
    high = (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201)
    goal_low, goal_high = low[3:], high[3:]
    goal_height = LYING
    moved = 0.09
    second_at = At("mechanism", IN_HANDLE)
    landmark_at = At("free", END)

    def reward(self, now, episode, action):
        radius = 0.05
        stick, target = now.object, episode.target
        middle = jnp.array([0.05, 0.0, 0.0])
        flask, flask_start = now.second + middle, episode.landmark + middle
        scale = jnp.array([1.0, 1.0, 2.0])
        threading = closeness(
            length((stick - flask) * scale),
            radius,
            length((episode.object - flask_start) * scale),
        )
        margin = distance(episode.object, target)
        stick_near = closeness(distance(stick, target), radius, margin)
        margin = distance(episode.landmark, target)
        flask_near = closeness(distance(flask, target), radius, margin)
        grasped = caging(
            now,
            # Officially these margins, too, are taken from the flask, not the stick.
            episode._replace(object=episode.landmark),
            action,
            stick,
            object_radius=0.014,
            pad_success=0.05,
            xz_threshold=0.01,
            density="high",
        )
        held = holding(now, stick, episode.object, AT_TIPS)
        wanted = both(jnp.where(held, 1.0, grasped), threading)
        through = jnp.where(
            distance(now.second, target) <= SOLVED,
            10.0,
            6.0 + wanted + 2.0 * stick_near + flask_near,
        )
        pulled = jnp.where(self._through(now), through, 1.0 + wanted + 5.0 * threading)
        terms = {
            "grasped": grasped,
            "threading": threading,
            "stick_near": stick_near,
            "flask_near": flask_near,
        }
        return Reward(jnp.where(held, pulled, wanted), terms)

    def success(self, now, episode):
        return (distance(now.second, episode.target) <= SOLVED) & self._through(now)

    def _through(self, now):
        """Whether the end of the stick is behind the handle's plane, within it."""
        past, y, z = now.landmark - now.second
        return (past >= 0) & (jnp.abs(y) <= 0.04) & (jnp.abs(z) <= 0.06)
