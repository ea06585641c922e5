"""The corruptions, beside an independent implementation that is given our strengths.

That is `imagecorruptions-imaug`, whose strengths are ImageNet-C's and stand in the
middle of its functions: here they are replaced in its source, and its random numbers
are drawn from the generator that ours has.
"""

import inspect
import re
import types

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxmeta.data.corruptions import CORRUPTIONS, corrupt, weather
from jaxmeta.data.corruptions.strengths import STRENGTHS

oracle = pytest.importorskip(
    "imagecorruptions.corruptions",
    reason="needs `pip install imagecorruptions-imaug` (OpenCV, scikit-image, numba)",
)

# Its elastic transform is another one, without the affine map: see below.
NAMES = [name for name in CORRUPTIONS if name != "elastic_transform"]
# Truncation to bytes after another order of sums; snow is also rounded elsewhere.
TOLERANCE = {"snow": 2}


class Numpy:
    """NumPy, but for its random numbers."""

    def __init__(self, rng):
        self.random = types.SimpleNamespace(
            normal=rng.normal,
            uniform=rng.uniform,
            poisson=rng.poisson,
            randint=rng.integers,
            seed=lambda seed: None,
        )

    def __getattr__(self, name):
        return getattr(np, name)


def images(side):
    noise = np.random.default_rng(0).normal(size=(3, side, side, 3))
    noise = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0))
    return np.clip(128 + 70 * noise / noise.std(), 0, 255).astype(np.uint8)


def theirs(name, image, strength, rng, monkeypatch):
    """The oracle's answer for one image, in floating point."""
    shuffle = oracle._shuffle_pixels_njit_glass_blur
    shuffle = getattr(shuffle, "py_func", shuffle)  # compiled, it draws by itself
    monkeypatch.setattr(oracle, "_shuffle_pixels_njit_glass_blur", shuffle)
    monkeypatch.setattr(oracle, "np", Numpy(rng))
    source = inspect.getsource(getattr(oracle, name))
    source, count = re.subn(
        r"c = \[.*?\]\[\s*severity - 1\]", f"c = {strength}", source, flags=re.DOTALL
    )
    assert count == 1
    space = dict(vars(oracle))
    exec(source, space)
    seed = {"impulse_noise": {"seed": rng}, "glass_blur": {"seed": 0}}.get(name, {})
    return np.asarray(space[name](Image.fromarray(image), **seed), float)


def trimmed(img, factor, zoom=oracle.clipped_zoom):
    """The oracle's zoom, cut to size in the middle, as the authors do."""
    side, zoomed = img.shape[0], zoom(img, factor)
    trim = (zoomed.shape[0] - side) // 2
    return zoomed[trim : trim + side, trim : trim + side]


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", NAMES)
def test_ours_and_theirs(name, side, monkeypatch):
    monkeypatch.setattr(oracle, "clipped_zoom", trimmed)
    photo = np.random.default_rng(1).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    monkeypatch.setattr(weather, "frost_textures", lambda side: [photo] * 6)
    monkeypatch.setattr(oracle.cv2, "imread", lambda path: photo[..., ::-1])
    monkeypatch.setattr(oracle.cv2, "resize", lambda photo, **size: photo)
    for severity, strength in enumerate(STRENGTHS[side][name], 1):
        if name == "zoom_blur":
            strength = ([1 + 0.01 * i for i in range(strength[0])],)
        for i, image in enumerate(images(side)):
            ours = corrupt(image[None], name, severity, np.random.default_rng(i))[0]
            c = strength[0] if len(strength) == 1 else strength
            they = theirs(name, image, c, np.random.default_rng(i), monkeypatch)
            # The authors' motion blur is ImageMagick's, which rounds.
            they = np.rint(they) if name == "motion_blur" else np.uint8(they)
            error = np.abs(ours - they.astype(float))
            assert error.max() <= TOLERANCE.get(name, 1)
            assert error.mean() < 0.1


@pytest.mark.parametrize("side", [32, 64])
def test_the_affine_map_is_opencvs(side):
    cv2 = oracle.cv2
    for i, image in enumerate(images(side)):
        ours = corrupt(image[None], "elastic_transform", 1, np.random.default_rng(i))[0]
        off = side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
        corners = (side // 2 + off).astype(np.float32)
        jitter = np.random.default_rng(i).uniform(-0.08 * side, 0.08 * side, (3, 2))
        matrix = cv2.getAffineTransform(corners, corners + jitter.astype(np.float32))
        x = image.astype(np.float32) / 255
        moved = cv2.warpAffine(
            x, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101
        )
        error = np.abs(ours - np.floor(255 * np.clip(moved, 0, 1)))
        assert error.max() <= 1
        assert error.mean() < 0.05
