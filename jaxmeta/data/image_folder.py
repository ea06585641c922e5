"""Image files: one image, and folders with a folder for each class.

Files are treated as untrusted: only JPEG and PNG are read, an image is decoded when its
header gives the expected size, and a damaged one ends in one line that names it.
"""

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxmeta.data.source import DataError


class LabelledImages(NamedTuple):
    """Images and their classes.

    Attributes:
      images: `[n, side, side, 3]` bytes, red, green and blue, or `[n, side, side]`.
      labels: `[n]` integers >= 0.
    """

    images: np.ndarray
    labels: np.ndarray


def read_image(file: Path | bytes, side: int, *, where: str = "") -> np.ndarray:
    """Reads one JPEG or PNG image; a grey one becomes a coloured one.

    Args:
      file: its path, or what is in it.
      side: of the square that it must be.
      where: what the image is, for messages; its path if empty.

    Returns:
      `[side, side, 3]` bytes.

    Raises:
      DataError: if it is missing, not an image, truncated or of another size.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("L", (2, 2), 7).save(file, "PNG")
      >>> read_image(file.getvalue(), 2)[0].tolist()
      [[7, 7, 7], [7, 7, 7]]
    """
    where = where or str(file)
    with _opened(file, where) as image:
        width, height = image.size
        if (width, height) == (side, side):
            return np.asarray(image.convert("RGB"))
    raise DataError(
        f"{where}: the image must be {side} x {side}, got {width} x {height}; all "
        "images must have this size."
    )


def read_packed(
    jpeg: np.ndarray, offsets: np.ndarray, count: int, side: int, *, where: str
) -> np.ndarray:
    """Reads image files that lie one after the other.

    Args:
      jpeg: their bytes.
      offsets: `[count + 1]` where each begins, and the last ends.
      count: how many there must be, >= 1.
      side: of the squares that they must be.
      where: what the bytes are, for messages.

    Returns:
      `[count, side, side, 3]` bytes.

    Raises:
      DataError: if the offsets do not fit, and as `read_image` does.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("RGB", (2, 2)).save(file, "JPEG")
      >>> packed = np.frombuffer(file.getvalue() * 3, np.uint8)
      >>> offsets = np.arange(4) * (len(packed) // 3)
      >>> read_packed(packed, offsets, 3, 2, where="three").shape
      (3, 2, 2, 3)
    """
    ends = offsets.astype(np.int64)
    fits = len(ends) == count + 1 > 1 and np.all(np.diff(ends) > 0)
    if not (fits and ends[0] == 0 and ends[-1] == len(jpeg)):
        raise DataError(
            f"{where}: its offsets must rise from 0 to its size in {count} steps, one "
            "for each label; copy the file again."
        )
    images = [
        read_image(jpeg[start:end].tobytes(), side, where=f"{where}: image {place}")
        for place, (start, end) in enumerate(itertools.pairwise(ends))
    ]
    return np.stack(images)


def read_resized(file: Path, side: int) -> np.ndarray:
    """Reads one JPEG or PNG image of any size, grey or coloured.

    Args:
      file: its path.
      side: of the square that it becomes.

    Returns:
      `[side, side, 1]` bytes of a grey image, `[side, side, 3]` of a coloured one.

    Raises:
      DataError: if it is missing, not an image or truncated.
    """
    with _opened(file, str(file)) as image:
        return _square(image, side)


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """An image as a square.

    Args:
      pixels: `[height, width, 1 or 3]` bytes.
      side: of the square.

    Returns:
      `[side, side, 1 or 3]` bytes.

    Example:
      >>> resized(np.zeros((5, 4, 1), np.uint8), 2).shape
      (2, 2, 1)
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return _square(image, side)


def _square(image: Image.Image, side: int) -> np.ndarray:
    image = ImageOps.exif_transpose(image)  # cameras write how they were held
    grey = image.mode in ("1", "L", "LA", "I", "I;16")
    if image.mode in ("I", "I;16"):  # which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:  # on paper
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    # First the mode: Pillow silently takes the nearest pixel in an image of one bit.
    image = image.convert("L" if grey else "RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(side, side, -1)


@contextlib.contextmanager
def _opened(file: Path | bytes, where: str) -> Iterator[Image.Image]:
    """The image of a file; what goes wrong with it inside is a DataError."""
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with Image.open(opened, formats=["JPEG", "PNG"]) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{where}: not a JPEG or PNG image; copy it again.") from None
    except Exception as error:
        # Pillow raises a dozen types on bytes that are not what they should be.
        raise DataError(
            f"{where}: cannot be read, truncated or corrupt ({type(error).__name__}: "
            f"{error}); copy it again."
        ) from error


def read_images(paths: Sequence[Path], side: int) -> np.ndarray:
    """Reads image files of one size, as `read_image` does.

    Args:
      paths: of the files.
      side: of the squares that they must be.

    Returns:
      `[n, side, side, 3]` bytes.

    Raises:
      DataError: as `read_image` does, for the first file that is not as it should be.

    Example:
      >>> read_images([], 32).shape
      (0, 32, 32, 3)
    """
    images = np.empty((len(paths), side, side, 3), np.uint8)
    for place, path in enumerate(paths):
        images[place] = read_image(path, side)
    return images


def class_names(folder: str | os.PathLike[str], num_classes: int) -> list[str]:
    """The classes of a folder that has a folder for each: their names, sorted.

    Args:
      folder: its path.
      num_classes: how many there must be.

    Raises:
      DataError: if the folder is missing or holds another number of folders.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for name in ("dog", "cat"):
      ...         Path(folder, name).mkdir()
      ...     class_names(folder, 2)
      ['cat', 'dog']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; name the directory that the data set was "
            "unpacked to."
        )
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) != num_classes:
        raise DataError(
            f"{folder}: must hold {num_classes} folders, one a class, got "
            f"{len(names)}; name the directory that the data set was unpacked to."
        )
    return names


def read_classes(
    folder: str | os.PathLike[str], classes: Sequence[str], side: int, pattern: str
) -> LabelledImages:
    """Reads the images of some classes, each of which has a folder.

    Args:
      folder: that holds the folders.
      classes: their names; the place of a name is the label.
      side: of the square that every image must be.
      pattern: of the images below a class's folder, such as `*.png`.

    Returns:
      The images, sorted by class and within it by name.

    Raises:
      DataError: if a class has no image, and as `read_image` does.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for name, grey in (("cat", 3), ("dog", 5)):
      ...         Path(folder, name).mkdir()
      ...         Image.new("L", (2, 2), grey).save(Path(folder, name, "a.png"))
      ...     found = read_classes(folder, ["cat", "dog"], 2, "*.png")
      >>> found.images[:, 0, 0, 0].tolist(), found.labels.tolist()
      ([3, 5], [0, 1])
    """
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(Path(folder, name).glob(pattern))
        if not found:
            raise DataError(
                f"{Path(folder, name)}: holds no images ({pattern}); unpack the data "
                "set again."
            )
        paths += found
        labels += [label] * len(found)
    return LabelledImages(read_images(paths, side), np.array(labels, np.int32))
