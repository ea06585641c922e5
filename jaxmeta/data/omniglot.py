"""Omniglot: 1623 handwritten characters, each drawn once by 20 people.

The split is the one of Vinyals et al., Matching Networks for One Shot Learning
(2016), as few-shot code has passed it on: 1028 characters to train, 172 to validate,
423 to test. It is a split of characters, not quite of alphabets: 41 letters of
Gurmukhi train and its other 4 test.

Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic
program induction (Science, 2015).
"""

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxmeta.data import source
from jaxmeta.data.digits import digit_classes
from jaxmeta.data.episodes import ClassImages, EpisodeSource, equal_classes
from jaxmeta.data.source import DataError

Origin: TypeAlias = Literal["npz", "tfds", "digits"]

_FILE = "omniglot.npz"
_BUILD = "tfds build omniglot --file_format=array_record"
_FETCH = f"or run `{_BUILD}` (needs TensorFlow) and set --source.origin tfds"
_SIZE = 28
_LOGGER = logging.getLogger(__name__)

# Characters have ids 1 to 1623 in the original release, and the letters of an
# alphabet have consecutive ones. All others train.
_VALIDATION_IDS = {
    "Armenian": (27, 67),
    "Bengali": (132, 177),
    "Early_Aramaic": (251, 272),
    "Hebrew": (466, 487),
    "Mkhedruli_(Georgian)": (729, 769),
}
_FIRST_TEST_ID = 1201  # the 42nd letter of Gurmukhi


@dataclasses.dataclass(frozen=True, kw_only=True)
class Omniglot(EpisodeSource):
    """Episodes over Omniglot at 28x28, ink = 1 and paper = 0.

    The images come from the file `omniglot.npz` in `JAXMETA_DATA_DIR`, else from TFDS
    where it has the data set (or may download it). When neither is there and no data
    directory was named, they are scikit-learn's digits, with a warning in the log.
    `data_used` says which.

    The file holds `images` (`[character, example, 28, 28]` bytes, ink = 255) and
    `char_id` (`[character]` the original ids, 1 to 1623).

    Attributes:
      origin: which of the three to use; `auto` takes the first that is there.

    Raises:
      DataError: if the origin asked for is not there or damaged, when it is read.

    References:
      Vinyals et al., Matching Networks for One Shot Learning (2016), section 4.1.1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> source = Omniglot(ways=5, shots=1, queries=5, origin="digits")
      >>> task = source.sample(jax.random.key(0), jnp.arange(2), split="train")
      >>> task.query.inputs.shape, source.data_used
      ((2, 25, 28, 28, 1), 'scikit-learn digits, NOT Omniglot')
    """

    origin: Literal["auto", "npz", "tfds", "digits"] = "auto"

    @functools.cached_property
    def origin_used(self) -> Origin:
        """Where the images come from; decided once per object.

        Raises:
          DataError: if `JAXMETA_DATA_DIR` names something that is not a directory, or
            one without the file, and TFDS has none either.
        """
        if self.origin != "auto":
            return self.origin
        if source.find_file(_FILE):
            return "npz"
        if source.downloads_allowed() or source.tfds_prepared("omniglot"):
            return "tfds"
        if source.data_dir() is not None:
            raise source.DataError(
                f"{_FILE} is not in the data directory {source.data_dir()}. Run "
                f"`{_BUILD}` (needs TensorFlow) once, or name another --data-dir, or "
                "train on scikit-learn's digits: --source.origin digits of `jaxmeta "
                "train`."
            )
        return "digits"

    @property
    def data_used(self) -> str:
        return {
            "npz": f"Omniglot ({_FILE})",
            "tfds": "Omniglot (TFDS)",
            "digits": "scikit-learn digits, NOT Omniglot",
        }[self.origin_used]

    def classes(self) -> ClassImages:
        if self.origin_used == "npz":
            return _from_npz()
        if self.origin_used == "tfds":
            return _from_tfds()
        if self.origin == "auto":
            _warn_of_digits()
        return digit_classes(_SIZE)


@source.settle.register
def _(omniglot: Omniglot) -> Omniglot:
    if omniglot.origin == "auto" and omniglot.origin_used == "digits":
        _warn_of_digits()
    return dataclasses.replace(omniglot, origin=omniglot.origin_used)


def _warn_of_digits() -> None:
    _LOGGER.warning(
        "Omniglot was not found: using scikit-learn's digits, so the results are NOT "
        "Omniglot results. Point JAXMETA_DATA_DIR or --data-dir at a directory with "
        "%s, or run `%s` (needs TensorFlow) once.",
        _FILE,
        _BUILD,
    )


def vinyals_split(char_id: np.ndarray) -> np.ndarray:
    """The split of each character: 0 train, 1 validation, 2 test.

    Validation holds the alphabets Armenian, Bengali, Early Aramaic, Hebrew and
    Mkhedruli; test the evaluation characters from the 42nd letter of Gurmukhi on;
    train the rest, 25 background alphabets and 8 of the evaluation set.

    Args:
      char_id: `[n]` original ids, 1 to 1623.

    Returns:
      `[n]` int32. All 1623 characters make 1028, 172 and 423.

    Example:
      >>> np.bincount(vinyals_split(np.arange(1, 1624))).tolist()
      [1028, 172, 423]
    """
    ids = np.asarray(char_id, np.int32)
    split = np.where(ids >= _FIRST_TEST_ID, 2, 0).astype(np.int32)
    for first, last in _VALIDATION_IDS.values():
        split[(first <= ids) & (ids <= last)] = 1
    return split


def _from_npz() -> ClassImages:
    directory = source.data_dir()
    if directory is None:
        raise DataError(
            f"{_FILE}: no directory to look in; set JAXMETA_DATA_DIR or --data-dir to "
            f"the one that holds it, {_FETCH}."
        )
    path: Path = directory / _FILE
    keys = {"images": (4, "u"), "char_id": (1, "iu")}
    file = source.load_npz(path, keys, fetch=_FETCH)
    images, char_id = file["images"], file["char_id"]
    if images.dtype != np.uint8 or images.shape[2:] != (_SIZE, _SIZE):
        raise DataError(
            f"{path}: images should be uint8 [character, example, {_SIZE}, {_SIZE}], "
            f"got {images.dtype} {list(images.shape)}; copy it again, {_FETCH}."
        )
    _check_ids(str(path), char_id, len(images))
    return equal_classes(images[..., None], vinyals_split(char_id))


def _from_tfds() -> ClassImages:
    """Reads the 105x105 drawings of both TFDS splits and shrinks them."""
    by_id: dict[int, list[np.ndarray]] = {}
    for split in ("train", "test"):  # of alphabets: background and evaluation
        for example in source.load_tfds("omniglot", split):
            drawings = by_id.setdefault(int(example["label"]) + 1, [])
            drawings.append(_shrink(example["image"]))
    counts = {len(drawings) for drawings in by_id.values()}
    if len(counts) != 1:
        raise DataError(
            "TFDS data set 'omniglot': every character should have as many drawings "
            f"as every other, got {min(counts, default=0)} to {max(counts, default=0)}"
            "; delete it and prepare it again."
        )
    char_id = np.array(sorted(by_id))
    _check_ids("TFDS data set 'omniglot'", char_id, len(char_id))
    images = np.stack([np.stack(by_id[i]) for i in char_id.tolist()])
    return equal_classes(images[..., None], vinyals_split(char_id))


def _check_ids(where: str, char_id: np.ndarray, num_characters: int) -> None:
    unique = np.unique(char_id)
    in_range = unique.size and unique[0] >= 1 and unique[-1] <= 1623
    if not in_range or not unique.size == char_id.size == num_characters:
        raise DataError(
            f"{where}: should give each of its {num_characters} characters an id of "
            f"its own between 1 and 1623, got {char_id.size} ids, {unique.size} "
            "distinct; make or prepare it again."
        )


def _shrink(drawing: Any) -> np.ndarray:
    """A `[105, 105, 3]` drawing, black on white, as `[28, 28]` with ink = 255."""
    from PIL import Image

    # Grey first: Pillow silently takes the nearest pixel in an image of one bit.
    grey = Image.fromarray(np.asarray(drawing, np.uint8)).convert("L")
    return 255 - np.asarray(grey.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS))
