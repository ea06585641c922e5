"""Folders of images: order, labels, and files that are not as they should be."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data.image_folder import (
    class_names,
    read_classes,
    read_image,
    read_images,
)
from jaxmeta.data.source import DataError


def save(path, side=4, seed=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels, mode=None).save(path)
    return pixels


def test_an_image_is_its_pixels(tmp_path):
    pixels = save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 4), pixels)
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(read_image(content, 4), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_grey_becomes_coloured(tmp_path, name):
    save(tmp_path / name, mode="L")
    found = read_image(tmp_path / name, 4)
    assert found.shape == (4, 4, 3)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(found[..., 1], np.asarray(image))


def test_transparency_is_dropped(tmp_path):
    pixels = save(tmp_path / "a.png", mode="RGBA")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 4), pixels[..., :3])


def test_classes_are_folders_in_order(tmp_path):
    written = {
        (name, file): save(tmp_path / name / file, seed=10 * i + j)
        for i, name in enumerate(("owl", "ant", "bee"))
        for j, file in enumerate(("2.png", "10.png"))
    }
    (tmp_path / "ant" / "notes.txt").write_text("not of the pattern")
    (tmp_path / "README").write_text("not a folder")
    (tmp_path / ".hidden").mkdir()
    classes = class_names(tmp_path, 3)
    assert classes == ["ant", "bee", "owl"]
    found = read_classes(tmp_path, classes, 4, "*.png")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [written[name, f] for name in classes for f in ("10.png", "2.png")]
    np.testing.assert_array_equal(found.images, expected)


def test_images_may_lie_deeper(tmp_path):
    pixels = save(tmp_path / "ant" / "images" / "a.png")
    found = read_classes(tmp_path, ["ant"], 4, "images/*.png")
    np.testing.assert_array_equal(found.images, [pixels])


def test_an_empty_class(tmp_path):
    save(tmp_path / "ant" / "a.png")
    (tmp_path / "bee").mkdir()
    with pytest.raises(DataError, match=r"bee: holds no images \(\*.png\)") as error:
        read_classes(tmp_path, ["ant", "bee"], 4, "*.png")
    assert "\n" not in str(error.value)


def test_mixed_sizes(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, side in zip(paths, (4, 5, 6), strict=True):
        save(path, side)
    with pytest.raises(DataError, match=r"1.png: the image must be 4 x 4, got 5 x 5"):
        read_images(paths, 4)


def test_an_image_that_is_not_square(tmp_path):
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: .* 4 x 4, got 4 x 5"):
        read_image(tmp_path / "a.png", 4)


def test_not_an_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"a.png: not a JPEG or PNG image"):
        read_image(path, 4)
    with pytest.raises(DataError, match=r"^the third: not a JPEG or PNG image"):
        read_image(path.read_bytes(), 4, where="the third")


def test_other_kinds_of_images_are_not_opened(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "TIFF")
    with pytest.raises(DataError, match="not a JPEG or PNG image"):
        read_image(file.getvalue(), 4, where="a")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_image(tmp_path, name):
    path = tmp_path / name
    save(path, 32)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=rf"{name}: cannot be read, truncated") as error:
        read_image(path, 32)
    assert "\n" not in str(error.value)


def test_a_missing_image(tmp_path):
    with pytest.raises(DataError, match=r"a.png: cannot be read"):
        read_image(tmp_path / "a.png", 4)


def test_the_number_of_classes(tmp_path):
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}: must hold 3 folders.* got 1;"):
        class_names(tmp_path, 3)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        class_names(Path(tmp_path, "nowhere"), 3)
