"""What is drawn beyond what is simulated: colours, table, lights, goal and arm.

The scene is the one that is simulated; nothing of this has a part in the physics. Where
robot and table stand is as official (Yu et al., Meta-World, CoRL 2019), and the robot's
joints are those of the arm that the hand hangs on, drawn as straight links.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import mujoco
import numpy as np
from jaxtyping import Float

from jaxmeta.manipulation.task import ManipulationTask
from jaxmeta.manipulation.template import CRUMB, mjcf

Colour: TypeAlias = tuple[float, ...]
"""Red, green and blue in [0, 1] and, of what is not opaque, alpha."""
Part: TypeAlias = Literal["wall", "fixed", "free", "mechanism"]
Place: TypeAlias = Float[np.ndarray, "3"]

WHITE, STEEL, DARK = (0.88, 0.88, 0.86), (0.55, 0.58, 0.62), (0.2, 0.21, 0.23)
RED, ORANGE, YELLOW = (0.75, 0.1, 0.08), (0.92, 0.45, 0.1), (0.9, 0.7, 0.12)
BLUE, GLASS, BRICK = (0.15, 0.33, 0.68), (0.5, 0.75, 0.9, 0.5), (0.6, 0.34, 0.28)
PINE, OAK = (0.78, 0.63, 0.45), (0.5, 0.33, 0.19)
GREEN = (0.05, 0.9, 0.15)
"""The goal's, and nothing else's."""

PARTS: dict[Part, tuple[Colour, ...]] = {
    "wall": (BRICK,),
    "fixed": (STEEL,),
    "free": (RED,),
    "mechanism": (BLUE,),
}
"""Colours of the shapes of a part, boxes before capsules; the last is the rest's."""

NUT: dict[Part, tuple[Colour, ...]] = {
    "free": (BLUE, BLUE, BLUE, OAK, BLUE),
    "fixed": (STEEL,),
}
BUTTON: dict[Part, tuple[Colour, ...]] = {
    "fixed": (YELLOW,),
    "mechanism": (STEEL, STEEL, RED),
}
COFFEE: dict[Part, tuple[Colour, ...]] = {
    "fixed": (DARK, DARK, STEEL),
    "free": (WHITE,),
    "mechanism": (RED,),
}
DOOR: dict[Part, tuple[Colour, ...]] = {
    "fixed": (STEEL,),
    "mechanism": (WHITE, DARK),
}
LOCK: dict[Part, tuple[Colour, ...]] = {
    "fixed": (STEEL, WHITE, DARK),
    "mechanism": (RED,),
}
DRAWER: dict[Part, tuple[Colour, ...]] = {
    "fixed": (OAK,),
    "mechanism": (PINE, PINE, PINE, PINE, DARK),
}
HOLE: dict[Part, tuple[Colour, ...]] = {"wall": (PINE,)}
PLATE: dict[Part, tuple[Colour, ...]] = {"fixed": (WHITE,), "mechanism": (BLUE,)}
LEVER: dict[Part, tuple[Colour, ...]] = {
    "fixed": (STEEL,),
    "mechanism": (STEEL, DARK, DARK, RED),
}
HANDLE: dict[Part, tuple[Colour, ...]] = {"fixed": (STEEL,), "mechanism": (DARK, RED)}
FLASK: dict[Part, tuple[Colour, ...]] = {
    "free": (OAK,),
    "mechanism": (DARK, DARK, DARK, BLUE),
}
WINDOW: dict[Part, tuple[Colour, ...]] = {
    "fixed": (OAK, OAK, OAK, OAK, OAK, GLASS),
    "mechanism": (GLASS, RED),
}

TASKS: dict[str, dict[Part, tuple[Colour, ...]]] = {
    "assembly": NUT,
    "basketball": {"fixed": (WHITE, STEEL, ORANGE), "free": (ORANGE,)},
    "bin-picking": {"wall": (BLUE,), "fixed": (RED,), "free": (YELLOW,)},
    "box-close": {"fixed": (OAK,), "free": (OAK, RED)},
    "button-press": BUTTON,
    "button-press-topdown": BUTTON,
    "button-press-topdown-wall": BUTTON,
    "button-press-wall": BUTTON,
    "coffee-button": COFFEE,
    "coffee-pull": COFFEE,
    "coffee-push": COFFEE,
    "dial-turn": {"mechanism": (STEEL, RED)},
    "disassemble": NUT,
    "door-close": DOOR,
    "door-lock": LOCK,
    "door-open": DOOR,
    "door-unlock": LOCK,
    "drawer-close": DRAWER,
    "drawer-open": DRAWER,
    "faucet-close": {"mechanism": (STEEL, STEEL, RED)},
    "faucet-open": {"mechanism": (STEEL, STEEL, RED)},
    "hammer": {"free": (OAK, STEEL), "mechanism": (STEEL,)},
    "hand-insert": HOLE,
    "handle-press": HANDLE,
    "handle-press-side": HANDLE,
    "handle-pull": HANDLE,
    "handle-pull-side": HANDLE,
    "lever-pull": LEVER,
    "peg-unplug-side": {"free": (BLUE,), "fixed": (WHITE,)},
    "pick-out-of-hole": HOLE,
    "plate-slide": PLATE,
    "plate-slide-back": PLATE,
    "plate-slide-back-side": PLATE,
    "plate-slide-side": PLATE,
    "shelf-place": {"fixed": (OAK,), "free": (BLUE,)},
    "soccer": {"fixed": (WHITE,), "free": (YELLOW,)},
    "stick-pull": FLASK,
    "stick-push": FLASK,
    "sweep-into": HOLE,
    "window-close": WINDOW,
    "window-open": WINDOW,
}
"""Where a task's differ from those of `PARTS`."""

# The official table; the floor that is simulated, its top, is not drawn.
TABLE = """
<visual>
  <global fovy="45" offwidth="{width}" offheight="{height}"/>
  <quality shadowsize="4096" offsamples="4"/>
  <map shadowclip="2"/>
  <headlight ambient=".42 .42 .42" diffuse=".22 .22 .22" specular="0 0 0"/>
</visual>
<statistic center="0 .6 0" extent="1.2"/>
<asset>
  <texture type="skybox" builtin="flat" rgb1=".93 .94 .96" rgb2=".93 .94 .96" width="8"
    height="48"/>
</asset>
<worldbody>
  <light directional="true" pos=".5 1.1 1.5" dir="-.36 -.42 -1" diffuse=".5 .5 .5"
    specular=".1 .1 .1"/>
  <light directional="true" castshadow="false" dir="-.4 1 -.4" diffuse=".3 .3 .3"
    specular="0 0 0"/>
  <geom type="box" size=".7 .4 .027" pos="0 .6 {top}" rgba=".78 .63 .45 1"/>
  <geom type="box" size=".64 .34 .43" pos="0 .6 -.48" rgba=".5 .33 .19 1"/>
</worldbody>
</mujoco>"""


def dressed(task: ManipulationTask, width: int, height: int) -> Any:
    """The scene of a task as MuJoCo's model, to be drawn.

    Args:
      task: whose scene.
      width: of the largest picture, pixels.
      height: of the largest picture, pixels.
    """
    top = task.geometry.floor - 0.027
    table = TABLE.format(width=width, height=height, top=top)
    scene = mjcf(task.geometry, timestep=0.0025).replace("</mujoco>", table)
    model = mujoco.MjModel.from_xml_string(scene)  # pyright: ignore[reportAttributeAccessIssue] - compiled
    colours = PARTS | TASKS.get(task.name, {})
    counts = dict.fromkeys(colours, 0)
    for i in range(model.ngeom):
        geom = model.geom(i)
        part: Any = geom.name.split("_")[0]
        if geom.name == "floor" or _is_crumb(geom):
            geom.rgba[:] = 0
        elif part in colours:
            one = colours[part][min(counts[part], len(colours[part]) - 1)]
            counts[part] += 1
            geom.rgba[: len(one)] = one
        elif geom.name:
            geom.rgba[:3] = DARK  # the hand
    return model


def _is_crumb(geom: Any) -> bool:
    """Whether the shape is one that the task has no use for."""
    return bool(np.max(geom.size) <= CRUMB)


class Capsule(NamedTuple):
    """A capsule that is only drawn.

    Attributes:
      start: `[3]` one end of its axis, metres.
      end: `[3]` the other.
      radius: metres.
      colour: its colour.
    """

    start: Place
    end: Place
    radius: float
    colour: Colour


def ball(middle: Place, radius: float, colour: Colour) -> Capsule:
    """A ball that is only drawn.

    Args:
      middle: `[3]` metres.
      radius: metres.
      colour: its colour.
    """
    return Capsule(middle, middle + np.array([0.0, 0.0, 1e-4]), radius, colour)


FOOT = np.array([0.0, 0.0, -0.9])
"""Of the robot, metres."""

THICK = (0.09, 0.08, 0.065, 0.06, 0.05, 0.05, 0.045, 0.03)
"""Radii of the arm's links from the foot on, metres."""


def arm(origins: Float[np.ndarray, "7 3"], hand: Place) -> list[Capsule]:
    """The arm that holds the hand, and what it stands on.

    Args:
      origins: `[7, 3]` of its links, as `arm.frames` has them, metres.
      hand: `[3]` where its last link ends, metres.

    Example:
      >>> links = arm(np.zeros((7, 3)), np.array([0.0, 0.6, 0.2]))
      >>> len(links), links[-1].end.tolist()
      (15, [0.0, 0.6, 0.2])
    """
    points = [FOOT, *origins, hand]
    links = [
        Capsule(start, end, radius, WHITE)
        for start, end, radius in zip(points[:-1], points[1:], THICK, strict=True)
    ]
    joints = zip(origins, THICK[1:], strict=True)
    return [*(ball(at, 1.1 * radius, DARK) for at, radius in joints), *links]
