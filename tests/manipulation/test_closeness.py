"""Official actions, open loop, in our scene: how far apart hand and object come.

Until the first contact our scene should do what the official one does; after it the
hand's errors decide who touches what, and how. `pytest -rP` prints the table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.scene import Geometry
from jaxmeta.manipulation.suites import Suite
from jaxmeta.manipulation.tasks import TASKS

OFFICIAL = Suite(name="MT50").tasks
REST = 20
"""Steps after which what lies free has come to rest."""
# What is observed right after the official reset, before the positions set by it have
# been passed on, is 20 cm off there.
STALE = {"window-close"}
# Where the lock has pushed the official hand aside before the first step.
ASIDE = {"door-lock", "door-unlock"}
# Where the hand touches something in the first step.
AT_ONCE = {"door-lock", "door-unlock", "drawer-close", "handle-press"}


class Apart(NamedTuple):
    """Distances of ours from the official ones at every step of an episode, metres."""

    hand: np.ndarray
    object: np.ndarray
    contact: int
    """The first step at which officially a pad presses on the object or it moves, or at
    which, in ours, the hand touches anything."""

    @property
    def before(self):
        """Hand and object before the first contact."""
        return self.hand[1 : self.contact], self.object[1 : self.contact]

    @property
    def after(self):
        """From the first contact on."""
        return self.hand[self.contact :], self.object[self.contact :]


def compare(name, seen, touching, recorded):
    """How far apart an episode is."""
    theirs = recorded["observation"]
    part = lambda places: np.linalg.norm(seen[:, places] - theirs[:, places], axis=1)
    pressed = (recorded["pad_forces"] > 0).any(axis=1)
    touched = _moved(name, theirs) | pressed | touching
    contact = int(np.argmax(touched)) if touched.any() else len(seen)
    return Apart(part(slice(0, 3)), part(slice(4, 7)), contact)


def _moved(name, observed):
    """Whether an object is not where it was at rest; mechanisms are from the start."""
    objects = observed[:, [*range(4, 7), *range(11, 14)]]
    rest = REST if TASKS[name].object_at.body == "free" else 1
    moved = np.abs(objects - objects[min(rest, len(objects) - 1)]).max(axis=1) > 1e-3
    return moved & (np.arange(len(objects)) > rest)


def table(apart):
    """Median and maximum of every task, before and after the first contact, mm."""
    lines = [f"{'mm, median / maximum':26s} contact  hand          object        after"]
    for name, one in apart.items():
        cells = [
            f"{1e3 * np.median(x):5.1f} /{1e3 * x.max():6.1f}" if len(x) else " " * 13
            for x in (*one.before, *one.after)
        ]
        lines.append(f"{name:26s} {one.contact:7d} {' '.join(cells)}")
    return "\n".join(lines)


@jax.jit
def touches(contact):
    """Whether pads or palm touch anything: `[task]`."""
    model = compile_scene(Geometry(), 0.0025)
    hand = [model.geom(name).id for name in ("right_pad", "left_pad", "palm")]
    ours = jnp.isin(contact.geom, jnp.array(hand)).any(axis=-1)
    return (ours & (contact.dist < contact.includemargin)).any(axis=-1)


@pytest.fixture(scope="module")
def replayed(room, scripted, recorded):
    """What is seen, and whether the hand touches anything, by task.

    Our scene gets the official actions.
    """
    (state, actions), names = scripted, [task.name for task in room.env.tasks]
    seen, touching = [np.asarray(state.obs)], [np.zeros(len(names), bool)]
    for action in actions:
        state = room.step(state, jnp.asarray(action))
        seen.append(np.asarray(state.obs))
        touching.append(np.asarray(touches(state.pipeline_state._impl.contact)))
    # Contacts are those at the beginning of a step's last substep.
    of = lambda x, name, rows: np.array(x)[: len(rows["action"]), names.index(name)]
    return {
        name: (of(seen, name, rows), of(touching, name, rows))
        for name, rows in recorded.items()
    }


@pytest.fixture(scope="module")
def apart(replayed, recorded):
    """The distances of every task, and the table of them."""
    found = {
        name: compare(name, seen, touching, recorded[name])
        for name, (seen, touching) in replayed.items()
    }
    return found, table(found)


@pytest.mark.parametrize("name", OFFICIAL)
def test_things_start_where_they_do_officially(replayed, recorded, name):
    if name in STALE:
        pytest.skip("the official observation of a reset is stale here")
    ours, theirs = replayed[name][0][0], recorded[name]["observation"][0]
    aside = 7.5e-3 if name in ASIDE else 1e-3
    np.testing.assert_allclose(ours[:3], theirs[:3], atol=aside)
    np.testing.assert_allclose(ours[4:7], theirs[4:7], atol=1e-3)
    np.testing.assert_allclose(ours[11:14], theirs[11:14], atol=1e-3)
    np.testing.assert_allclose(ours[36:], theirs[36:], atol=1e-3)
    difference = min(np.abs(ours[7:11] - sign * theirs[7:11]).max() for sign in (1, -1))
    # The official box-close leaves the lid turned as the episode before did.
    assert difference < 2e-3


def test_objects_are_where_they_are_officially_until_they_are_touched(apart):
    found, text = apart
    print(text)
    for name, one in found.items():
        _, difference = one.before
        assert difference.max(initial=0.0) <= 1e-3, (name, text)


def test_the_hand_follows_the_official_one(apart):
    """Open loop; a centimetre is what it should be within, at every step."""
    found, text = apart
    hands = {name: one.before[0] for name, one in found.items() if one.contact > 1}
    assert set(OFFICIAL) - set(hands) == AT_ONCE
    largest = {name: hand.max() for name, hand in hands.items()}
    assert max(largest.values()) < 0.002, text
    assert np.median(list(largest.values())) < 6e-4, text


def test_after_contact_errors_stay_small(apart):
    """Of what is held or pushed; what rolls or slips away goes its own way."""
    found, text = apart
    after = [one.after for one in found.values() if len(one.after[0])]
    hand, thing = (
        np.sort([np.median(x) for x in rows]) for rows in zip(*after, strict=True)
    )
    # README has the numbers.
    assert np.median(hand) < 0.002, text
    assert np.median(thing) < 0.005, text
