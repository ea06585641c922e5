"""What is drawn beyond what is simulated."""

import numpy as np
import pytest

from jaxmeta.manipulation.looks import GREEN, PARTS, SHOULDER, arm, dressed
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


def test_the_arm_holds_the_hand():
    rng = np.random.default_rng(0)
    for hand in rng.uniform((-0.5, 0.4, 0.05), (0.5, 0.9, 0.5), size=(50, 3)):
        _, upper, lower, wrist, *_ = arm(hand)
        np.testing.assert_allclose(upper.start, SHOULDER)
        np.testing.assert_allclose(upper.end, lower.start)
        np.testing.assert_allclose(lower.end, wrist.start)
        np.testing.assert_allclose(wrist.end[:2], hand[:2])
        for link in (upper, lower):
            assert np.linalg.norm(link.end - link.start) == pytest.approx(0.6)
        middle = (SHOULDER + lower.end) / 2
        assert upper.end[2] > middle[2]  # the elbow is up


def test_out_of_reach_the_arm_is_straight():
    _, upper, lower, *_ = arm(np.array([0.0, 3.0, 0.08]))
    np.testing.assert_allclose(upper.end, [0.0, 1.5, 0.32])
    np.testing.assert_allclose(lower.end, [0.0, 3.0, 0.32])
