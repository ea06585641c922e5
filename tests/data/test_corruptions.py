"""Corrupting images: what holds for all of them, and weather and spatter by hand."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxmeta.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, frost_textures
from jaxmeta.data.corruptions.liquid import spatter
from jaxmeta.data.corruptions.strengths import STRENGTHS
from jaxmeta.data.corruptions.weather import clouds, fog, frost, snow
from jaxmeta.data.source import DataError

SIDES = (32, 64)
DATA_DIR = os.environ.get("JAXMETA_DATA_DIR")
FIXED = (
    "gaussian_blur",
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "jpeg_compression",
)
# At the lowest severity the elastic transform moves the corners the most, and the
# first two severities of saturate fade the colours where the others boost them.
MONOTONE = [
    name for name in CORRUPTIONS if name not in ("elastic_transform", "saturate")
]


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(level, n=1, side=32):
    return np.full((n, side, side, 3), level, np.uint8)


def smooth(n, height, width, seed=0):
    """Random images without detail that use the whole range."""
    noise = rng(seed).normal(size=(n, height, width, 3))
    blurred = ndimage.gaussian_filter(noise, (0, 4, 4, 0))
    return np.clip(128 + 64 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def jpeg(image, form="JPEG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return np.frombuffer(file.getvalue(), np.uint8)


def write_frost(directory, **changed):
    """A file like the one with the photos; every photo has a level of its own."""
    files = {
        f"frost{i}_{scale}": jpeg(flat(40 * i, side=70 + i)[0])
        for i in range(1, 6)
        for scale in (2, 3)
    }
    np.savez(directory / "frost.npz", **files | changed)


@pytest.fixture(autouse=True)
def frost_file(tmp_path, monkeypatch):
    write_frost(tmp_path)
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))


def test_the_names_are_those_of_the_published_files():
    names = """gaussian_noise shot_noise impulse_noise speckle_noise gaussian_blur
    defocus_blur glass_blur motion_blur zoom_blur snow frost fog brightness contrast
    saturate elastic_transform spatter pixelate jpeg_compression"""
    assert tuple(names.split()) == CORRUPTIONS


def test_every_corruption_has_five_strengths():
    assert set(STRENGTHS) == set(SIDES)
    for table in STRENGTHS.values():
        assert set(table) == set(CORRUPTIONS)
        assert all(len(set(strengths)) == 5 for strengths in table.values())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_of_smooth_images(name, side):
    images = smooth(6, side, side)
    kept = images.copy()
    change = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, rng())
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        again = corrupt(images, name, severity, rng())
        np.testing.assert_array_equal(corrupted, again)
        other = corrupt(images, name, severity, rng(1))
        assert (corrupted == other).all() == (name in FIXED)
        change.append(np.abs(corrupted.astype(int) - images).mean())
    np.testing.assert_array_equal(images, kept)
    assert min(change) > 0
    assert name not in MONOTONE or change[-1] > change[0]


def test_the_images_of_a_batch_have_draws_of_their_own():
    images = np.repeat(smooth(1, 32, 32), 2, axis=0)
    for name in set(CORRUPTIONS) - set(FIXED) - {"frost"}:
        first, second = corrupt(images, name, 5, rng())
        assert (first != second).any(), name


def test_many_images_are_corrupted_one_like_the_other():
    images = np.repeat(smooth(2, 32, 32), 150, axis=0)
    corrupted = corrupt(images, "zoom_blur", 5, rng())
    one_by_one = [corrupt(x[None], "zoom_blur", 5, rng())[0] for x in images[[0, 299]]]
    np.testing.assert_array_equal(corrupted[[0, 299]], one_by_one)
    np.testing.assert_array_equal(corrupted[:150], corrupted[[0] * 150])
    np.testing.assert_array_equal(corrupted[150:], corrupted[[299] * 150])


def test_no_images():
    assert corrupt(flat(0, n=0), "snow", 1, rng()).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (flat(0), "gausian_noise", 1, "did you mean 'gaussian_noise'"),
        (flat(0), "fog", 0, "severity must be from 1 to 5, got 0"),
        (flat(0), "fog", 6, "severity must be from 1 to 5, got 6"),
        (flat(0) / 255.0, "fog", 1, "must be uint8, got float64"),
        (flat(0, side=28), "fog", 1, r"got \[1, 28, 28, 3\]"),
        (flat(0)[:, :, :30], "fog", 1, r"got \[1, 32, 30, 3\]"),
        (flat(0)[..., :1], "fog", 1, r"got \[1, 32, 32, 1\]"),
        (flat(0)[0], "fog", 1, r"got \[32, 32, 3\]"),
        (np.uint8(0), "fog", 1, r"got \[\]"),
    ],
)
def test_what_cannot_be_corrupted(images, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(np.asarray(images), name, severity, rng())


def test_without_flakes_snow_whitens():
    image = flat(0)
    image[:, :16] = [0, 100, 0]
    white = snow(image, 0.0, 0.1, 1.0, 9.0, 8, 3.0, 0.8, rng())[0]
    # grey = 0.587 * 100 = 58.7; 1.5 grey + 127.5 = 215.55, of which a fifth is taken.
    assert white[0, 0].tolist() == [43, 123, 43]
    assert white[31, 0].tolist() == [25, 25, 25]


def test_snow_is_the_same_upside_down():
    snowy = snow(flat(0, n=3), 0.1, 0.3, 1.75, 0.5, 10, 4.0, 0.8, rng())
    np.testing.assert_array_equal(snowy, snowy[:, ::-1, ::-1])
    assert snowy.std(axis=(1, 2)).min() > 1


def test_flakes_fall():
    snowy = snow(flat(0, n=20), 0.1, 0.3, 1.0, 0.6, 10, 6.0, 1.0, rng()).astype(float)
    down, across = (np.abs(np.diff(snowy, axis=axis)).mean() for axis in (1, 2))
    assert down < 0.8 * across


def test_frost_is_a_weighted_sum():
    frosted = frost(flat(100, n=40), 0.9, 0.5, rng())
    # JPEG is exact where all is flat: 90, and half of 40, 80, 120, 160 or 200.
    assert np.unique(frosted).tolist() == [110, 130, 150, 170, 190]


def test_frost_is_a_piece_of_a_photo(tmp_path):
    photo = smooth(1, 40, 50)[0]
    write_frost(tmp_path, **{f"frost{i}_2": jpeg(photo, "JPEG") for i in range(1, 6)})
    (frosted,) = frost(flat(0), 0.0, 1.0, rng())
    windows = np.lib.stride_tricks.sliding_window_view(
        frost_textures(32)[0], (32, 32, 3)
    )
    assert (windows[:, :, 0] == frosted).all(axis=(2, 3, 4)).sum() == 1


@pytest.mark.skipif(not DATA_DIR, reason="JAXMETA_DATA_DIR is not set")
def test_the_photos_of_frost(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(DATA_DIR))
    sizes = {
        32: [(120, 180), (63, 112), (63, 112), (70, 105), (99, 132)],
        64: [(180, 270), (94, 168), (94, 168), (105, 158), (148, 198)],
    }
    for side, expected in sizes.items():
        assert [texture.shape[:2] for texture in frost_textures(side)] == expected


def test_without_its_photos_there_is_no_frost(tmp_path):
    (tmp_path / "frost.npz").unlink()
    with pytest.raises(DataError, match=r"frost.npz: not found; set JAXMETA_DATA_DIR"):
        corrupt(flat(0), "frost", 1, rng())
    with pytest.raises(ValueError, match="side must be one of"):
        frost_textures(28)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (np.zeros(50, np.uint8), "'frost2_2' is not a JPEG"),
        (jpeg(flat(9, side=70)[0], "PNG"), "'frost2_2' is not a JPEG"),
        (jpeg(flat(9, side=70)[0])[:-300], "'frost2_2' is not a JPEG"),
        (jpeg(flat(9, side=32)[0]), "sides from 33 to 2048, got 32 x 32"),
        (jpeg(np.zeros((40, 3000, 3), np.uint8)), "got 3000 x 40"),
    ],
)
def test_damaged_photos(tmp_path, file, message):
    write_frost(tmp_path, frost2_2=file)
    with pytest.raises(DataError, match=message):
        frost_textures(32)


def test_fog_of_white_and_of_black():
    white = fog(flat(255, n=2), 1.0, 2.0, rng())
    np.testing.assert_array_equal(white.min(axis=(1, 2, 3)), 127)  # 1 / (1 + density)
    np.testing.assert_array_equal(white.max(axis=(1, 2, 3)), 255)
    assert not fog(flat(0), 1.0, 2.0, rng()).any()


def test_a_cloud_of_four_points():
    u = rng().uniform(-1, 1, 3)
    heights = np.array([[0, u[0] / 2 + u[1]], [u[0] / 2 + u[2], u[0]]])
    expected = (heights - heights.min()) / np.ptp(heights)
    np.testing.assert_allclose(clouds(1, 2, 2.0, rng())[0], expected, atol=1e-12)


def test_clouds_are_smoother_with_more_decay():
    rough, even = (
        np.abs(np.diff(clouds(10, 64, decay, rng()))).mean() for decay in (1.5, 3.0)
    )
    assert even < 0.5 * rough


def test_water_adds_its_colour():
    wet = spatter(flat(0, n=4), 0.65, 0.3, 1.0, 0.69, 0.5, False, rng())
    brightest = wet.max(axis=(1, 2))
    np.testing.assert_array_equal(brightest, [[87, 119, 119]] * 4)  # half of the colour
    dry = spatter(flat(50), 0.65, 0.3, 1.0, 9.0, 0.5, False, rng())
    np.testing.assert_array_equal(dry, 50)


def test_mud_covers():
    muddy = spatter(flat(200), 9.0, 0.1, 0.7, 0.69, 0.6, True, rng())
    assert np.unique(muddy.reshape(-1, 3), axis=0).tolist() == [[63, 42, 20]]
    clean = spatter(flat(200), 0.65, 0.1, 0.7, 9.0, 0.6, True, rng())
    np.testing.assert_array_equal(clean, 200)
