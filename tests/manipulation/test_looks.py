"""What is drawn beyond what is simulated."""

import numpy as np
import pytest

from jaxmeta.manipulation.looks import FOOT, GREEN, PARTS, arm, dressed
from jaxmeta.manipulation.looks import TASKS as COLOURS
from jaxmeta.manipulation.tasks import TASKS


@pytest.mark.parametrize("name", list(TASKS))
def test_what_a_task_has_is_drawn_and_nothing_else(name):
    geometry = TASKS[name].geometry
    model = dressed(TASKS[name], 64, 48)
    seen = [model.geom(i).name for i in range(model.ngeom) if model.geom_rgba[i, 3] > 0]
    count = lambda part: sum(one.startswith(part) for one in seen)
    assert count("wall") == len(geometry.walls)
    assert count("fixed") == len(geometry.fixed)
    assert count("free") == len(geometry.free)
    assert count("mechanism") == len(geometry.mechanism)
    assert {"palm", "left_pad", "right_pad"} <= set(seen)
    assert "floor" not in seen


def test_colours_are_of_tasks_and_parts_that_there_are():
    assert set(COLOURS) <= set(TASKS)
    for name, parts in COLOURS.items():
        geometry = TASKS[name].geometry
        shapes = {"wall": geometry.walls, "fixed": geometry.fixed}
        shapes |= {"free": geometry.free, "mechanism": geometry.mechanism}
        for part, colours in parts.items():
            assert len(colours) <= len(shapes[part]), (name, part)
            assert GREEN not in colours
    assert GREEN not in [colour for colours in PARTS.values() for colour in colours]


def test_a_light_part_of_a_dark_whole():
    """The colours are those of the shapes they are meant for: boxes come first."""
    model = dressed(TASKS["door-open"], 64, 48)
    colour = lambda name: model.geom(name).rgba[:3].mean()
    assert colour("mechanism_box_0") > 0.8  # the door
    assert colour("mechanism_capsule_0") < 0.3  # its handle


def test_the_arm_is_one_chain_from_the_foot_to_the_hand():
    origins, hand = np.random.default_rng(0).normal(size=(7, 3)), np.ones(3)
    drawn = arm(origins, hand)
    balls, links = drawn[:7], drawn[7:]
    np.testing.assert_array_equal([x.start for x in links], [FOOT, *origins])
    np.testing.assert_array_equal([x.end for x in links], [*origins, hand])
    np.testing.assert_array_equal([x.start for x in balls], origins)
