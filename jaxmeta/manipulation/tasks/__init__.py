"""The fifty tasks by their official names."""

from jaxmeta.core.names import did_you_mean
from jaxmeta.manipulation.task import ManipulationTask
from jaxmeta.manipulation.tasks.basketball import Basketball
from jaxmeta.manipulation.tasks.bin_picking import BinPicking
from jaxmeta.manipulation.tasks.box_close import BoxClose
from jaxmeta.manipulation.tasks.button_press import (
    ButtonPress,
    ButtonPressTopdown,
    ButtonPressTopdownWall,
    ButtonPressWall,
    CoffeeButton,
)
from jaxmeta.manipulation.tasks.coffee_mug import CoffeePull, CoffeePush
from jaxmeta.manipulation.tasks.dial_turn import DialTurn
from jaxmeta.manipulation.tasks.door import DoorClose, DoorOpen
from jaxmeta.manipulation.tasks.door_lock import DoorLock, DoorUnlock
from jaxmeta.manipulation.tasks.drawer import DrawerClose, DrawerOpen
from jaxmeta.manipulation.tasks.faucet import FaucetClose, FaucetOpen
from jaxmeta.manipulation.tasks.hammer import Hammer
from jaxmeta.manipulation.tasks.hand_insert import HandInsert
from jaxmeta.manipulation.tasks.handle import (
    HandlePress,
    HandlePressSide,
    HandlePull,
    HandlePullSide,
)
from jaxmeta.manipulation.tasks.lever_pull import LeverPull
from jaxmeta.manipulation.tasks.nut import Assembly, Disassemble
from jaxmeta.manipulation.tasks.peg_insert_side import PegInsertSide
from jaxmeta.manipulation.tasks.peg_unplug_side import PegUnplugSide
from jaxmeta.manipulation.tasks.pick_out_of_hole import PickOutOfHole
from jaxmeta.manipulation.tasks.pick_place import PickPlace
from jaxmeta.manipulation.tasks.pick_place_wall import PickPlaceWall, PushWall
from jaxmeta.manipulation.tasks.plate_slide import (
    PlateSlide,
    PlateSlideBack,
    PlateSlideBackSide,
    PlateSlideSide,
)
from jaxmeta.manipulation.tasks.push import Push, PushBack
from jaxmeta.manipulation.tasks.reach import Reach, ReachWall
from jaxmeta.manipulation.tasks.shelf_place import ShelfPlace
from jaxmeta.manipulation.tasks.soccer import Soccer
from jaxmeta.manipulation.tasks.stick import StickPull, StickPush
from jaxmeta.manipulation.tasks.sweep import Sweep, SweepInto
from jaxmeta.manipulation.tasks.window import WindowClose, WindowOpen

TASKS: dict[str, ManipulationTask] = {
    task.name: task
    for task in (
        Assembly(),
        Basketball(),
        BinPicking(),
        BoxClose(),
        ButtonPress(),
        ButtonPressTopdown(),
        ButtonPressTopdownWall(),
        ButtonPressWall(),
        CoffeeButton(),
        CoffeePull(),
        CoffeePush(),
        DialTurn(),
        Disassemble(),
        DoorClose(),
        DoorLock(),
        DoorOpen(),
        DoorUnlock(),
        DrawerClose(),
        DrawerOpen(),
        FaucetClose(),
        FaucetOpen(),
        Hammer(),
        HandInsert(),
        HandlePress(),
        HandlePressSide(),
        HandlePull(),
        HandlePullSide(),
        LeverPull(),
        PegInsertSide(),
        PegUnplugSide(),
        PickOutOfHole(),
        PickPlace(),
        PickPlaceWall(),
        PlateSlide(),
        PlateSlideBack(),
        PlateSlideBackSide(),
        PlateSlideSide(),
        Push(),
        PushBack(),
        PushWall(),
        Reach(),
        ReachWall(),
        ShelfPlace(),
        Soccer(),
        StickPull(),
        StickPush(),
        Sweep(),
        SweepInto(),
        WindowClose(),
        WindowOpen(),
    )
}
"""Every task, in alphabetical order."""


def find(name: str) -> ManipulationTask:
    """The task of that name.

    Raises:
      ValueError: naming the nearest, if there is none.

    Example:
      >>> find("reach").name
      'reach'
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS, f"{__name__}.TASKS holds all names.")
        raise ValueError(f"unknown task {name!r}; {hint}")
    return TASKS[name]
