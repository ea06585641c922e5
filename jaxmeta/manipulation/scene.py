"""What a task puts into the scene: numbers, and nothing else.

One free body, one mechanism (two slides and a hinge in a chain) on a fixture that is
placed anew in every episode, and walls, of boxes and capsules: MuJoCo XLA cannot
collide the cylinders and meshes of the official scenes; each task says how it replaces
them. `template` adds the gripper and makes MJCF of it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxmeta.core.types import Array
from jaxmeta.manipulation.contact import BOX, OBJECT, TABLE, Material

Vector: TypeAlias = tuple[float, float, float]
Quat: TypeAlias = tuple[float, float, float, float]

NUM_WALLS, NUM_FIXED = 4, 8
NUM_BOXES, NUM_CAPSULES = 4, 4
"""Boxes and capsules of the free body, and as many of the mechanism."""

UNTURNABLE = 1e5
"""Inertia of official things that nothing can turn, kg m^2."""

FAR = 20.0
PARKED: Vector = (0.0, 0.0, FAR)
"""Where what a task has no use for is, metres."""


class Box(NamedTuple):
    """A box.

    Attributes:
      half: half of its sides, metres.
      pos: its centre in the frame of its body.
      quat: its orientation there, w first.
      mass: kilograms, of bodies that move.
    """

    half: Vector
    pos: Vector = (0.0, 0.0, 0.0)
    quat: Quat = (1.0, 0.0, 0.0, 0.0)
    mass: float = 0.1


class Capsule(NamedTuple):
    """A capsule along z, or a ball if its half length is 0.

    Attributes:
      radius: metres.
      half_length: of the axis, without the caps, metres.
      pos: its centre in the frame of its body.
      quat: its orientation there, w first.
      mass: kilograms, of bodies that move.
    """

    radius: float
    half_length: float = 0.0
    pos: Vector = (0.0, 0.0, 0.0)
    quat: Quat = (1.0, 0.0, 0.0, 0.0)
    mass: float = 0.1


ALONG_X: Quat = (0.7071068, 0.0, 0.7071068, 0.0)
ALONG_Y: Quat = (0.7071068, 0.7071068, 0.0, 0.0)
"""Orientations that lay a capsule along x or y."""

Shape: TypeAlias = Box | Capsule


class Joint(NamedTuple):
    """A slide or hinge of the mechanism.

    Attributes:
      axis: in the frame of the fixture.
      low: lowest position, metres or radians.
      high: highest.
      damping: N s/m or N m s/rad.
      stiffness: of a spring, N/m or N m/rad.
      rest: where the spring is at rest.
      armature: inertia added to the joint, kg or kg m^2; in time steps longer than
        `template.IMPLICIT` more.
      anchor: where the axis of a hinge passes, in the frame of the mechanism.
      softness: time constant of the joint's limits, seconds.
      ratio: their damping ratio.
    """

    axis: Vector
    low: float
    high: float
    damping: float = 1.0
    stiffness: float = 0.0
    rest: float = 0.0
    armature: float = 0.001
    anchor: Vector = (0.0, 0.0, 0.0)
    softness: float = 0.02
    ratio: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a task puts into the scene.

    Attributes:
      floor: height of the table, metres; lower where its top has a hole.
      walls: boxes fixed in the world.
      fixed: boxes fixed to the fixture.
      free: shapes of the free body, none if empty.
      inertia: of the free body about every axis through its frame's origin, where then
        its centre of mass is, kg m^2; that of its shapes if None.
      mechanism: shapes of the mechanism, none if empty.
      mechanism_pos: its frame in that of the fixture, metres.
      slides: its joints, in this order, at most two.
      hinge: its last joint, if any.
      friction: of the free body on the mechanism, fixture, walls and floor. The
        mechanism touches nothing immovable: the ranges of its joints say where it ends.
      grip: friction of the pads.
      free_of: how contacts of the free body give way.
      still_of: and those of the walls and the fixture.
      floor_of: and those of the table.

    Raises:
      ValueError: for more shapes of a kind than the scene has.

    Example:
      >>> Geometry(free=(Box((0.02, 0.02, 0.02)),)).inertia is None
      True
    """

    floor: float = 0.0
    walls: tuple[Box, ...] = ()
    fixed: tuple[Box, ...] = ()
    free: tuple[Shape, ...] = ()
    inertia: float | None = None
    mechanism: tuple[Shape, ...] = ()
    mechanism_pos: Vector = (0.0, 0.0, 0.0)
    slides: tuple[Joint, ...] = ()
    hinge: Joint | None = None
    friction: float = 1.0
    grip: float = 2.0
    free_of: Material = OBJECT
    still_of: Material = BOX
    floor_of: Material = TABLE

    def __post_init__(self):
        for name, limit in (("walls", NUM_WALLS), ("fixed", NUM_FIXED), ("slides", 2)):
            if len(found := getattr(self, name)) > limit:
                raise ValueError(f"{name} must be at most {limit}, got {len(found)}.")
        for name in ("free", "mechanism"):
            boxes, capsules = by_kind(getattr(self, name))
            if len(boxes) > NUM_BOXES or len(capsules) > NUM_CAPSULES:
                raise ValueError(
                    f"{name} must have at most {NUM_BOXES} boxes and {NUM_CAPSULES} "
                    f"capsules, got {len(boxes)} and {len(capsules)}."
                )


class Placement(NamedTuple):
    """Where things are at the start of an episode; metres and radians.

    Attributes:
      fixture: `[3]` the fixture.
      free: `[3]` the free body; `PARKED` where there is none.
      free_quat: `[4]` its orientation, w first.
      joints: `[3]` the two slides and the hinge of the mechanism.
    """

    fixture: Array
    free: Array
    free_quat: Array
    joints: Array


def placed(
    *,
    fixture: Array | Vector = (0.0, 0.0, 0.0),
    free: Array | Vector = PARKED,
    free_quat: Array | Quat = (1.0, 0.0, 0.0, 0.0),
    joints: Array | Vector = (0.0, 0.0, 0.0),
) -> Placement:
    """A placement, with what a task has no use for left where it is.

    Example:
      >>> placed(free=(0.0, 0.6, 0.02)).free.tolist()[:2]
      [0.0, 0.6...]
    """
    given = (fixture, free, free_quat, joints)
    return Placement(*(jnp.asarray(x, jnp.float32) for x in given))


class At(NamedTuple):
    """A point fixed to a body.

    Attributes:
      body: "free", "mechanism" or "fixture".
      offset: in its frame, metres.
      quat: orientation of the point in that frame, w first.
    """

    body: Literal["free", "mechanism", "fixture"]
    offset: Vector = (0.0, 0.0, 0.0)
    quat: Quat = (1.0, 0.0, 0.0, 0.0)


def by_kind(shapes: Sequence[Shape]) -> tuple[list[Box], list[Capsule]]:
    """The boxes and the capsules.

    Example:
      >>> by_kind((Capsule(0.1), Box((0.1, 0.1, 0.1))))[0][0].half
      (0.1, 0.1, 0.1)
    """
    boxes = [shape for shape in shapes if isinstance(shape, Box)]
    return boxes, [shape for shape in shapes if isinstance(shape, Capsule)]
