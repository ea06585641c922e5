"""What a manipulation task is: numbers to start from, a reward and a success.

A task never touches the simulator. It reads `Readings`, a few positions and angles of
one moment, and what is fixed for an episode, `Episode`. So rewards are compared with
the official package's on recorded states, without any physics of ours.
"""

import abc
import dataclasses
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar
from jaxmeta.manipulation.scene import At, Geometry, Placement
from jaxmeta.manipulation.shaping import Point

Quaternion: TypeAlias = Float[Array, "4"]
"""Unit quaternion, w first."""

QuatOrder: TypeAlias = Literal["wxyz", "xyzw", "zeros", "ones"]
"""How the official observation writes an orientation; "ones" is (1, 0, 0, 0) always."""

VECTOR = 6
"""Numbers in a draw; tasks that need three ignore the others."""
HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)
"""Between these the observed position of the hand is clipped, metres."""


class Readings(NamedTuple):
    """What rewards and observations read at one moment; metres, radians, world axes.

    x is to the right of the robot, y away from it, z up; the table top is at z = 0.

    Attributes:
      hand: `[3]` the hand's body, as observed, that is clipped to the hand's space.
      tcp: `[3]` the middle between the finger tips.
      left_pad: `[3]` the pad of the left finger (at larger y).
      right_pad: `[3]` the pad of the right one.
      opening: `[]` distance between the claws over .1 m, in [0, 1].
      object: `[3]` the observed point of the task's main object.
      quat: `[4]` the main object's orientation, w first.
      second: `[3]` the observed point of the second object, zeros if there is none.
      second_quat: `[4]` its orientation.
      landmark: `[3]` one more point that some rewards read; each says which.
      joint: `[]` position of the mechanism's joint, where a reward reads it.
      pad_forces: `[2]` positive where the left and right pad press on the main object:
        newtons in recordings, 1 in ours.
    """

    hand: Point
    tcp: Point
    left_pad: Point
    right_pad: Point
    opening: Scalar
    object: Point
    quat: Quaternion
    second: Point
    second_quat: Quaternion
    landmark: Point
    joint: Scalar
    pad_forces: Float[Array, "2"]


class Episode(NamedTuple):
    """What stays the same for an episode.

    Attributes:
      target: `[3]` the goal.
      object: `[3]` where the main object starts, as the rewards take it.
      tcp: `[3]` where the middle between the finger tips starts.
      landmark: `[3]` one more point that some rewards need; each says which.
    """

    target: Point
    object: Point
    tcp: Point
    landmark: Point


class Reward(NamedTuple):
    """The reward of one step and what it is made of.

    Attributes:
      total: `[]` the official reward; of version 2 it is in [0, 10].
      terms: its named terms, `[]` each.
    """

    total: Scalar
    terms: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManipulationTask(abc.ABC):
    """One of the fifty tasks, or of your own; all methods are pure and jittable.

    README has one of your own, whole, in its section on Meta-World.

    Attributes:
      name: the official name without its version, as `door-open`.
      hand_start: where the hand starts, metres.
      hand_low: lowest position that actions can move the hand to, metres.
      hand_high: highest.
      low: `[3]` or `[6]` lower corner of the box that `vector` is drawn from.
      high: its upper corner.
      goal_low: `[3]` where the observed goal is clipped, metres.
      goal_high: `[3]`.
      quat_order: how the main object's orientation is observed.
      second_order: how the second object's is; "zeros" where there is none.
      geometry: what is in the scene.
      object_at: the observed point of the main object.
      second_at: of the second object, None if there is none.
      landmark_at: the landmark, None if no reward reads it.
      joint_index: which joint of the mechanism `Readings.joint` is.
    """

    name: ClassVar[str]
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)
    low: ClassVar[tuple[float, ...]]
    high: ClassVar[tuple[float, ...]]
    goal_low: ClassVar[tuple[float, float, float]]
    goal_high: ClassVar[tuple[float, float, float]]
    quat_order: ClassVar[QuatOrder] = "wxyz"
    second_order: ClassVar[QuatOrder] = "zeros"
    geometry: ClassVar[Geometry]
    object_at: ClassVar[At]
    second_at: ClassVar[At | None] = None
    landmark_at: ClassVar[At | None] = None
    joint_index: ClassVar[int] = 2

    @abc.abstractmethod
    def place(self, vector: Float[Array, " n"]) -> Placement:
        """Where things start, for a draw."""

    def accepts(self, vector: Float[Array, " n"]) -> Bool[Array, ""]:
        """Whether a draw is used; the official package draws again where it is not."""
        del vector
        return jnp.array(True)

    @abc.abstractmethod
    def begin(self, vector: Float[Array, " n"], first: Readings, tcp: Point) -> Episode:
        """What is fixed for an episode.

        Args:
          vector: `[3]` or `[6]`, the draw that says where things and goal are.
          first: what is read right after the reset.
          tcp: `[3]` the middle between the finger tips when the hand has come to rest.
        """

    @abc.abstractmethod
    def reward(
        self, now: Readings, episode: Episode, action: Float[Array, "4"]
    ) -> Reward:
        """The reward for arriving at `now` by `action` (x, y, z, grip; in [-1, 1]).

        Environments show its total; the terms are for whoever calls this.
        """

    def reward_v1(
        self, now: Readings, episode: Episode, action: Float[Array, "4"]
    ) -> Reward:
        """The same of the official version 1, from about -1 up to several thousand.

        Its total jumps where the task's next part begins to count.

        Raises:
          ValueError: for a task of one's own that has none.
        """
        raise ValueError(
            f"{self.name} has no version 1 reward; leave reward_version at v2."
        )

    @abc.abstractmethod
    def success(self, now: Readings, episode: Episode) -> Bool[Array, ""]:
        """Whether the task is solved now; an episode is if any of its steps is."""


def complete(task: ManipulationTask) -> ManipulationTask:
    """The task, if it says all that it must.

    Args:
      task: to be played.

    Raises:
      ValueError: for what is no task, and naming the attributes that are missing or
        do not fit.
    """
    if not isinstance(task, ManipulationTask):
        raise ValueError(
            f"a task is a name or a ManipulationTask, as MyTask() is, got {task!r}."
        )
    said = set(dir(type(task))) | set(vars(task))
    missing = [name for name in ManipulationTask.__annotations__ if name not in said]
    if missing:
        raise ValueError(f"{type(task).__name__} must say its {', '.join(missing)}.")
    if not 1 <= len(task.low) == len(task.high) <= VECTOR:
        raise ValueError(
            f"{type(task).__name__} must have as many numbers in low as in high, at "
            f"most {VECTOR}, got {len(task.low)} and {len(task.high)}."
        )
    return task
