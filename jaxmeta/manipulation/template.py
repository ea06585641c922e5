"""One scene of primitives for all tasks, as MJCF.

A gripper whose arm is elsewhere (three slides, two fingers, a palm) and what a task
puts into the scene (`scene`). MuJoCo compiles every task from the same template, so
that what differs between tasks is arrays of equal shapes, and one program steps any
mixture of them.

The hand moves as `hand` says. Fingers have the official mass, range and servo. Contacts
give way as `contact` says. Pads have a contact dimension of their own against what can
be grasped, because only the nearest pairs of every kind are looked at (`nearest`): so
other things that touch cannot crowd the fingers out.
"""

from collections.abc import Sequence

from jaxmeta.manipulation.contact import OBJECT, PAD, WRIST, pair
from jaxmeta.manipulation.hand import MASS
from jaxmeta.manipulation.scene import (
    ALONG_Y,
    FAR,
    NUM_BOXES,
    NUM_CAPSULES,
    NUM_FIXED,
    NUM_WALLS,
    Box,
    Capsule,
    Geometry,
    Joint,
    Shape,
    by_kind,
)

FINGER_MASS = 0.0162
"""Of a finger, kilograms."""

CRUMB = 1e-3
"""Size of the shapes that a task has no use for, within its first one, metres."""
NEVER = -1.0
"""Margin of their pairs, metres: nothing is so deep in anything that they push."""


def mjcf(geometry: Geometry, *, timestep: float) -> str:
    """The scene with the numbers of a task, as MJCF.

    Args:
      geometry: what the task puts into it.
      timestep: of the simulation, seconds.

    Example:
      >>> import mujoco
      >>> text = mjcf(Geometry(free=(Box((0.02, 0.02, 0.02)),)), timestep=0.0025)
      >>> model = mujoco.MjModel.from_xml_string(text)
      >>> model.nq, model.nv, model.nu
      (15, 14, 2)
    """
    fingers = "".join(_finger(side) for side in ("right", "left"))
    free = geometry.free
    lines = [
        '<mujoco model="manipulation"><compiler angle="radian" autolimits="false"/>',
        # Within 1.5e-6 m/s a step of the converged; by two iterations within 2e-3.
        f'<option timestep="{timestep}" iterations="3" ls_iterations="4" '
        'solver="Newton" cone="pyramidal" jacobian="dense" integrator="Euler">'
        '<flag eulerdamp="disable"/></option>',
        '<custom><numeric name="max_contact_points" data="10"/>'
        '<numeric name="max_geom_pairs" data="3"/></custom>',
        '<default><geom contype="0" conaffinity="0"/></default><worldbody>',
        f'<geom name="floor" type="plane" size="2 2 .1" pos="0 0 {geometry.floor}"/>',
        *_boxes("wall", geometry.walls, NUM_WALLS),
        '<body name="carriage">',
        *(
            f'<joint name="hand_{axis}" type="slide" axis="{unit}"/>'
            for axis, unit in zip("xyz", ("1 0 0", "0 1 0", "0 0 1"), strict=True)
        ),
        # Where the tips are; its turn is a number of the model.
        '<body name="hand" gravcomp="1">',
        # The wrist's hull, whose rounded edges slide along what it pushes.
        '<geom name="palm" type="capsule" size=".03 .024" pos="-.006 0 .111" '
        f'quat="{_text(ALONG_Y)}" mass="{MASS - 2 * FINGER_MASS}"/>',
        f"{fingers}</body></body>",
        f'<body name="free" pos="0 0 {0.0 if free else FAR}" '
        f'gravcomp="{0 if free else 1}"><freejoint name="free"/>',
        _inertial(geometry),
        *_shapes("free", free),
        "</body>",
        '<body name="fixture">',  # its place is a number of the model
        *_boxes("fixed", geometry.fixed, NUM_FIXED),
        f'<body name="mechanism" pos="{_text(geometry.mechanism_pos)}" gravcomp="1">',
        *_joints(geometry, timestep),
        *_shapes("mechanism", geometry.mechanism),
        "</body></body></worldbody><contact>",
        *_pairs(geometry),
        "</contact><actuator>",
        *(
            f'<position joint="{side}_finger" kp="400" ctrllimited="true" '
            'ctrlrange="-1 1"/>'
            for side in ("right", "left")
        ),
        "</actuator></mujoco>",
    ]
    return "\n".join(lines)


def _text(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.9g}" for x in numbers)


def _inertial(geometry: Geometry) -> str:
    """What MuJoCo then takes in place of what shapes weigh."""
    if geometry.inertia is None:
        return ""
    mass, about = sum(x.mass for x in geometry.free), f"{geometry.inertia:.9g} " * 3
    return f'<inertial pos="0 0 0" mass="{mass:.9g}" diaginertia="{about}"/>'


def _finger(side: str) -> str:
    """The official claw and pad, 3 mm apart, as one box; the frame is the pad's.

    Their contacts begin 1 mm early (a margin): the box is larger by so much.
    """
    sign = -1 if side == "right" else 1
    ranges = {"right": "0 .04", "left": "-.03 0"}
    return (
        f'<body name="{side}_pad" pos="0 {sign * 0.047} .045" gravcomp="1">'
        f'<joint name="{side}_finger" type="slide" axis="0 1 0" limited="true" '
        f'range="{ranges[side]}" armature="100" damping="1000"/>'
        f'<geom name="{side}_pad" type="box" size=".016 .0055 .046" '
        f'pos="0 {sign * 0.0015} 0" mass="{FINGER_MASS}"/></body>'
    )


def _boxes(name: str, boxes: Sequence[Box], count: int) -> list[str]:
    """Immovable boxes; those that are not used are far away, and apart."""
    spare = lambda i: Box((CRUMB, CRUMB, CRUMB), (FAR, float(i), FAR))
    padded = [*boxes, *map(spare, range(len(boxes), count))]
    return [_box(f"{name}_{i}", box) for i, box in enumerate(padded)]


def _box(name: str, box: Box) -> str:
    return (
        f'<geom name="{name}" type="box" size="{_text(box.half)}" '
        f'pos="{_text(box.pos)}" quat="{_text(box.quat)}" mass="{box.mass:.9g}"/>'
    )


def _shapes(name: str, shapes: Sequence[Shape]) -> list[str]:
    boxes, capsules = by_kind(shapes)
    where, mass = (shapes[0].pos, 1e-7) if shapes else ((0.0, 0.0, 0.0), 1e-4)
    crumbs = (
        Box((CRUMB, CRUMB, CRUMB), where, mass=mass),
        Capsule(CRUMB, CRUMB, where, mass=mass),
    )
    boxes += [crumbs[0]] * (NUM_BOXES - len(boxes))
    capsules += [crumbs[1]] * (NUM_CAPSULES - len(capsules))
    return [
        *(_box(f"{name}_box_{i}", box) for i, box in enumerate(boxes)),
        *(
            f'<geom name="{name}_capsule_{i}" type="capsule" '
            f'size="{capsule.radius:.9g} {max(capsule.half_length, 1e-4):.9g}" '
            f'pos="{_text(capsule.pos)}" quat="{_text(capsule.quat)}" '
            f'mass="{capsule.mass:.9g}"/>'
            for i, capsule in enumerate(capsules)
        ),
    ]


IMPLICIT = 0.0025
"""Up to this time step damping is as implicit as officially, seconds."""

LOCKED = Joint((1.0, 0.0, 0.0), -1e-4, 1e-4, damping=1e3, armature=1e3)
"""A joint that a task has no use for: as good as immovable."""


def _joints(geometry: Geometry, timestep: float) -> list[str]:
    # In long steps, contacts must know how slowly a joint can follow; not limits.
    longer = max(0.0, timestep - IMPLICIT)
    slides = [*geometry.slides, *[LOCKED] * (2 - len(geometry.slides))]
    hinge = LOCKED if geometry.hinge is None else geometry.hinge
    joints = [("slide", joint) for joint in slides] + [("hinge", hinge)]
    return [
        f'<joint name="mechanism_{i}" type="{kind}" axis="{_text(joint.axis)}" '
        f'pos="{_text(joint.anchor)}" limited="true" '
        f'range="{joint.low:.9g} {joint.high:.9g}" damping="{joint.damping:.9g}" '
        f'stiffness="{joint.stiffness + 1e-9:.9g}" springref="{joint.rest:.9g}" '
        f'armature="{joint.armature + longer * joint.damping:.9g}" '
        f'solreflimit="{joint.softness} {joint.ratio}"/>'
        for i, (kind, joint) in enumerate(joints)
    ]


def _pairs(geometry: Geometry) -> list[str]:
    """Everything that may touch; and crumbs, so that all tasks have as many pairs.

    Pads are of a kind of their own.
    """
    names = lambda body, boxes, capsules: [
        *(f"{body}_box_{i}" for i in range(boxes)),
        *(f"{body}_capsule_{i}" for i in range(capsules)),
    ]
    bodies = {"free": geometry.free, "mechanism": geometry.mechanism}
    free, mechanism = (names(body, NUM_BOXES, NUM_CAPSULES) for body in bodies)
    used = [names(body, *map(len, by_kind(x))) for body, x in bodies.items()]
    crumbs = {*free, *mechanism}.difference(*used)
    still = [
        ("floor", geometry.floor_of),
        *((f"wall_{i}", geometry.still_of) for i in range(NUM_WALLS)),
        *((f"fixed_{i}", geometry.still_of) for i in range(NUM_FIXED)),
    ]
    pads, thing = ["right_pad", "left_pad"], geometry.free_of
    grip, friction = geometry.grip, geometry.friction
    rows = [
        *((a, b, grip, 4, PAD, thing) for a in pads for b in free),
        *((a, b, grip, 4, PAD, OBJECT) for a in pads for b in mechanism),
        *((a, b, 1.0, 3, PAD, of) for a in pads for b, of in still),
        *(("palm", b, 1.0, 3, WRIST, of) for b, of in still),
        *(("palm", b, 1.0, 3, WRIST, thing) for b in free),
        *(("palm", b, 1.0, 3, WRIST, OBJECT) for b in mechanism),
        *((a, b, friction, 3, thing, OBJECT) for a in free for b in mechanism),
        *((a, b, friction, 3, thing, of) for a in free for b, of in still),
    ]
    margin = lambda a, b, *_: 0.0 if crumbs.isdisjoint((a, b)) else NEVER
    return [pair(*row, margin=margin(*row)) for row in rows]


def generic_scene() -> Geometry:
    """A scene in which nothing is aligned with anything, and no shape is a crumb.

    Example:
      >>> len(generic_scene().free) == NUM_BOXES + NUM_CAPSULES
      True
    """
    quat = (0.8, 0.4, 0.2, 0.4)
    box = lambda i: Box((0.02, 0.03, 0.04), (0.01 * i, 0.02, 0.03), quat, 0.1)
    capsule = lambda i: Capsule(0.02, 0.03, (0.01, 0.02 * i, 0.03), quat, 0.1)
    shapes: tuple[Shape, ...] = (
        *(box(i + 1) for i in range(NUM_BOXES)),
        *(capsule(i + 1) for i in range(NUM_CAPSULES)),
    )
    joint = Joint((0.6, 0.48, 0.64), -1.0, 1.0, anchor=(0.1, 0.2, 0.3), stiffness=1.0)
    return Geometry(
        walls=tuple(box(i + 1) for i in range(NUM_WALLS)),
        fixed=tuple(box(i + 1) for i in range(NUM_FIXED)),
        free=shapes,
        mechanism=shapes,
        mechanism_pos=(0.1, 0.2, 0.3),
        slides=(joint, joint),
        hinge=joint,
    )
