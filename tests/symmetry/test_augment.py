"""What is done to an image, one change at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.symmetry.augment import Augment

STILL = {
    "area": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "mirror": 0.0,
    "upend": 0.0,
    "max_turn_deg": 0.0,
}
KEYS = jax.random.split(jax.random.key(0), 200)
sides = pytest.mark.parametrize("side", [28, 84])


def picture(side, channels=1):
    return jax.random.uniform(jax.random.key(1), (side, side, channels))


def many(augment, image, keys=KEYS):
    return np.asarray(jax.jit(jax.vmap(augment, (0, None)))(keys, image))


@sides
@pytest.mark.parametrize("channels", [1, 3])
def test_without_any_change_it_is_the_identity(side, channels):
    image = picture(side, channels)
    np.testing.assert_array_equal(Augment(**STILL)(KEYS[0], image), image)


@sides
@pytest.mark.parametrize(("name", "axis"), [("mirror", 1), ("upend", 0)])
def test_flips(side, name, axis):
    image, flip = picture(side), Augment(**(STILL | {name: 1.0}))
    once = flip(KEYS[0], image)
    np.testing.assert_allclose(once, np.flip(image, axis), atol=1e-5)
    np.testing.assert_allclose(flip(KEYS[1], once), image, atol=1e-5)


def test_how_often_it_flips():
    image = jnp.zeros((8, 8, 1)).at[1, 2].set(1.0)
    found = many(Augment(**(STILL | {"mirror": 0.5, "upend": 0.25})), image)
    rows, columns = (found[..., 0].sum(axis).argmax(-1) for axis in (2, 1))
    # Of 200 draws four standard deviations are 28 and 25.
    assert abs((columns == 5).sum() - 100) < 28
    assert abs((rows == 6).sum() - 50) < 25
    assert set(rows) == {1, 6}
    assert set(columns) == {2, 5}


def test_turns_cover_their_range():
    # A point right of the centre goes up as it turns counter-clockwise.
    image = jnp.zeros((41, 41, 1)).at[20, 35].set(1.0)
    found = many(Augment(**(STILL | {"max_turn_deg": 30.0})), image)[..., 0]
    y, x = np.mgrid[:41, :41] - 20
    total = found.sum((1, 2))
    angles = np.degrees(
        np.arctan2(-(found * y).sum((1, 2)) / total, (found * x).sum((1, 2)) / total)
    )
    assert -32 < angles.min() < -25
    assert 25 < angles.max() < 32
    assert abs(angles.mean()) < 4 * 60 / np.sqrt(12 * 200)


def test_a_quarter_turn_leaves_nothing_out():
    image = picture(28)
    seen = many(Augment(**(STILL | {"max_turn_deg": 180.0})), jnp.ones_like(image))
    # The disc inside the image is always seen, its corners not always.
    y, x = np.mgrid[:28, :28] - 13.5
    np.testing.assert_allclose(seen[:, np.hypot(y, x) < 13], 1.0, atol=1e-5)
    assert seen[:, 0, 0].min() == 0.0


@sides
def test_a_crop_is_a_part_of_the_image(side):
    last, middle = side - 1, side // 2
    y, x = (plane.astype(np.float32) for plane in np.mgrid[:side, :side])
    image = jnp.stack([y, x], -1)
    found = many(Augment(**(STILL | {"area": (0.5, 0.9), "ratio": (0.8, 1.25)})), image)
    height = found[:, last - 1, middle, 0] - found[:, 1, middle, 0]
    width = found[:, middle, last - 1, 1] - found[:, middle, 1, 1]
    area, ratio = height * width / (side - 3) ** 2, width / height
    assert 0.5 - 1e-3 < area.min() < 0.55
    assert 0.85 < area.max() < 0.9 + 1e-3
    assert 0.8 - 1e-3 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.25 + 1e-3
    # It lies anywhere, and never outside: first and last pixels stay in the image.
    assert found.min() > -1e-4
    assert found.max() < last + 1e-4
    top = found[:, 0, middle, 0]
    assert top.min() < side / 56
    assert top.max() > side / 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"area": (1.0, 0.8)}, "area must be two numbers in order"),
        ({"area": (0.0, 0.8)}, "area must be two numbers .* above 0"),
        ({"area": (0.8, 1.2)}, "at most 1, got 0.8 and 1.2"),
        ({"ratio": (2.0, 1.0)}, "ratio .* in order, above 0, got 2.0 and 1.0"),
        ({"mirror": 1.5}, "mirror must be from 0 to 1, got 1.5"),
        ({"upend": -0.1}, "upend must be from 0 to 1, got -0.1"),
        ({"max_turn_deg": 200.0}, "max_turn_deg must be from 0 to 180"),
        ({"area": (float("nan"), 1.0)}, "area must be two numbers"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment(**settings)
