"""Noise, blurs and digital corruptions, worked out by hand or beside SciPy."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxmeta.data.corruptions.blurs import (
    defocus_blur,
    disk,
    gaussian_blur,
    glass_blur,
    motion_blur,
    smear,
    zoom,
    zoom_blur,
)
from jaxmeta.data.corruptions.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from jaxmeta.data.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from jaxmeta.data.corruptions.strengths import STRENGTHS


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(level, n=1):
    return np.full((n, 32, 32, 3), level, np.uint8)


def smooth(n):
    noise = ndimage.gaussian_filter(rng().normal(size=(n, 32, 32, 3)), (0, 4, 4, 0))
    return np.clip(128 + 64 * noise / noise.std(), 0, 255).astype(np.uint8)


# A mean over 24,576 values; the tolerances are five standard errors.
@pytest.mark.parametrize(
    ("noise", "strength", "level", "sigma"),
    [
        (gaussian_noise, 0.1, 128, 25.5),
        (speckle_noise, 0.2, 100, 20.0),
        (shot_noise, 60.0, 102, 255 * math.sqrt(0.4 / 60)),
    ],
)
def test_noise_has_the_given_deviation(noise, strength, level, sigma):
    noisy = noise(flat(level, n=8), strength, rng()).astype(float)
    error = sigma / math.sqrt(noisy.size)
    # Half a level is lost on average when values are truncated.
    assert abs(noisy.mean() - (level - 0.5)) < 5 * error
    assert abs(noisy.std() - sigma) < 5 * error


def test_impulse_noise_loses_the_given_share_of_values():
    noisy = impulse_noise(flat(128, n=8), 0.14, rng())
    for level in (0, 255):
        assert abs((noisy == level).mean() - 0.07) < 5 * math.sqrt(0.07 / noisy.size)
    assert (noisy == 128).mean() + (noisy == 0).mean() + (noisy == 255).mean() == 1


def test_gaussian_blur_of_a_point():
    image = flat(0)
    image[0, 16, 10] = 255
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    weights /= weights.sum()
    expected = np.zeros((32, 32))
    expected[12:21, 6:15] = np.outer(weights, weights)
    blurred = gaussian_blur(image, 1.0)[0]
    np.testing.assert_array_equal(
        blurred, np.uint8(255 * expected)[..., None] + [0] * 3
    )


@pytest.mark.parametrize("side", [32, 64])
def test_the_published_disks_sum_to_one(side):
    for radius, softness in STRENGTHS[side]["defocus_blur"]:
        kernel = disk(radius, softness)
        assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)


def test_a_disk_below_one_pixel_is_the_gaussian_that_softens_it():
    near = math.exp(-0.5 / 0.4**2)
    line = np.array([0.0, near, 1.0, near, 0.0][1:4]) / (1 + 2 * near)
    np.testing.assert_allclose(disk(0.3, 0.4), np.outer(line, line), atol=1e-12)


def test_a_large_disk_counts_its_pixels():
    # 29 pixels lie within 3 of the middle: 7 + 2 * (5 + 5 + 1).
    kernel = disk(3.0, 0.01)
    np.testing.assert_allclose(kernel[kernel > 1e-6], 1 / 29)
    assert (kernel > 1e-6).sum() == 29


@pytest.mark.parametrize(
    "blur",
    [
        lambda x: gaussian_blur(x, 1.5),
        lambda x: defocus_blur(x, 3.0, 0.1),
        lambda x: glass_blur(x, 0.9, 2, 2, rng()),
        lambda x: motion_blur(x, 12, 3.0, rng()),
        lambda x: zoom_blur(x, 26),
        lambda x: contrast(x, 0.15),
        lambda x: pixelate(x, 0.65),
        lambda x: jpeg_compression(x, 40),
        lambda x: elastic_transform(x, 0.05, 0.2, 0.08, rng()),
    ],
)
@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_flat_image_stays_as_it_is(blur, level):
    # Weights that sum to one but for 1e-16 may lose a level in truncation.
    assert np.ptp(blur(flat(level)).astype(int) - level) <= 1
    assert np.abs(blur(flat(level)).astype(int) - level).max() <= 1


@pytest.mark.parametrize("reach", [1, 2])
def test_glass_takes_colours_from_nearby(reach):
    rows, columns = np.mgrid[:64, :64]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    glass = glass_blur(image[None], 1e-3, reach, 1, rng())[0].astype(int)
    dy, dx = glass[..., 0] - rows, glass[..., 1] - columns
    inner = slice(reach + 1, 64 - reach + 1)
    outer = np.ones((64, 64), bool)
    outer[inner, inner] = False
    assert not dy[outer].any()
    assert not dx[outer].any()
    if reach == 1:  # What is above and to the left has not moved before.
        assert set(dy[inner, inner].ravel()) == set(dx[inner, inner].ravel()) == {-1, 0}
    else:
        # What is below has had its turn, and may hold a colour from farther down.
        assert dy.min() == -2
        assert dy.max() > 1


def test_a_point_is_smeared_along_half_a_gaussian():
    image = np.zeros((9, 9, 1))
    image[4, 6] = 1.0
    kernel = np.exp(-0.5 * (np.arange(5) / 2.0) ** 2)
    kernel /= kernel.sum()
    expected = np.zeros((9, 9))
    expected[4, 2:7] = kernel[::-1]
    np.testing.assert_allclose(smear(image, 2, 2.0, 0.0)[..., 0], expected, atol=1e-12)
    image = image.swapaxes(0, 1)
    np.testing.assert_allclose(smear(image, 2, 2.0, 90.0)[..., 0], expected.T)
    # Downwards to the right, steps of 0.7 and 1.4 pixels are both rounded to one.
    third = smear(image, 1, 1e6, 45.0)[..., 0]
    assert third[6, 4] == pytest.approx(1 / 3)
    assert third[5, 3] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("side", "factor"), [(32, 1.06), (32, 2.25), (64, 1.25)])
def test_zoom_is_scipys(side, factor):
    x = rng().uniform(size=(2, side, side, 3))
    kept = math.ceil(side / factor)
    first = (side - kept) // 2
    middle = x[:, first : first + kept, first : first + kept]
    larger = ndimage.zoom(middle, (1, factor, factor, 1), order=1, mode="nearest")
    trim = (larger.shape[1] - side) // 2
    expected = larger[:, trim : trim + side, trim : trim + side]
    np.testing.assert_allclose(zoom(x, factor), expected, atol=1e-12)


def test_zoom_blur_is_the_mean_of_the_zooms():
    images = smooth(2)
    x = images / 255
    mean = (2 * x + zoom(x, 1.01) + zoom(x, 1.02)) / 4
    difference = zoom_blur(images, 3).astype(float) - 255 * mean
    assert -1 <= difference.min() < -0.5
    assert difference.max() <= 1e-9


def test_brightness_and_saturation_are_those_of_the_standard_library():
    images = rng().integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    images[0, 0, :4] = [[0, 0, 0], [90, 90, 90], [255, 255, 255], [255, 0, 0]]

    def expected(change):
        pixels = [
            colorsys.hsv_to_rgb(*np.clip(change(*colorsys.rgb_to_hsv(*pixel)), 0, 1))
            for pixel in images.reshape(-1, 3) / 255
        ]
        return 255 * np.reshape(pixels, images.shape)

    brighter = brightness(images, 0.3), expected(lambda h, s, v: (h, s, v + 0.3))
    richer = saturate(images, 2.0, 0.1), expected(lambda h, s, v: (h, 2 * s + 0.1, v))
    paler = saturate(images, 0.3, 0.0), expected(lambda h, s, v: (h, 0.3 * s, v))
    for ours, theirs in (brighter, richer, paler):
        # Truncated, so up to one level below; 1e-9 where that is none.
        assert (ours - theirs).min() > -1 - 1e-9
        assert (ours - theirs).max() < 1e-9


def test_contrast_keeps_the_mean_of_every_channel():
    image = flat(0)
    image[0, :8] = [200, 100, 40]  # A quarter of the image: means 50, 25 and 10.
    np.testing.assert_allclose(
        contrast(image, 0.4)[0, [0, 31], 0], [[110, 55, 22], [30, 15, 6]], atol=1
    )


@pytest.mark.parametrize(
    ("side", "sizes"), [(32, (30, 28, 27, 24, 20)), (64, (57, 51, 44, 38, 32))]
)
def test_pixelate_leaves_so_many_columns(side, sizes):
    images = rng().integers(0, 256, (1, side, side, 3)).astype(np.uint8)
    for (factor,), size in zip(STRENGTHS[side]["pixelate"], sizes, strict=True):
        coarse = pixelate(images, factor)[0].astype(int)
        changes = np.abs(np.diff(coarse, axis=1)).sum(axis=(0, 2)) > 0
        assert changes.sum() == size - 1


def test_jpeg_is_pillows():
    images = smooth(2)
    for image, ours in zip(images, jpeg_compression(images, 40), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=40)
        np.testing.assert_array_equal(ours, np.asarray(Image.open(file)))


def test_elastic_transform_moves_three_corners():
    # Colours that say where a pixel was: both interpolations are exact for them.
    rows, columns = np.mgrid[:64, :64]
    image = np.stack([4 * rows, 4 * columns, 0 * rows], -1).astype(np.uint8)
    moved = elastic_transform(image[None], 0.0, 0.0, 0.05, rng())[0].astype(float)
    corners = np.array([[53, 53], [53, 11], [11, 11]])  # x and y: 32 and 21 off it
    x, y = (corners + rng().uniform(-3.2, 3.2, (1, 3, 2))[0]).T
    for channel, was in ((0, corners[:, 1]), (1, corners[:, 0])):
        found = ndimage.map_coordinates(moved[..., channel], [y, x], order=1)
        np.testing.assert_allclose(found, 4 * was, atol=1)  # truncated


def test_elastic_transform_displaces_as_scipy_does():
    image = smooth(1)
    alpha, sigma = 0.2, 0.04
    draws = rng()
    draws.uniform(size=6)  # the corners
    dx, dy = (
        32 * alpha * ndimage.gaussian_filter(noise, 32 * sigma, truncate=3.0)
        for noise in draws.uniform(-1, 1, (2, 32, 32))
    )
    rows, columns = np.mgrid[:32, :32]
    moved = elastic_transform(image, alpha, sigma, 0.0, rng())[0]
    for channel in range(3):
        x = image[0, ..., channel].astype(float)
        where = [rows + dy, columns + dx]
        expected = ndimage.map_coordinates(x, where, order=1, mode="reflect")
        assert np.abs(moved[..., channel] - expected).max() <= 1 + 1e-9
