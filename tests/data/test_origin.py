import pytest

from jaxmeta.data.origin import Places
from jaxmeta.data.source import DataError

BIRDS = Places(
    npz="birds.npz", directory="birds", tfds="birds", otherwise="draw some birds"
)
FISH = Places(npz="fish.npz", otherwise="draw some fish")


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A data directory and what TFDS has, both empty."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)
    return tmp_path


def test_only_what_there_can_be_may_be_asked_for():
    assert BIRDS.origins == ("auto", "npz", "tfds", "directory")
    assert FISH.origins == ("auto", "npz")
    for origin, path in (("auto", None), ("auto", "a"), ("npz", None)):
        BIRDS.check(origin, path)
    BIRDS.check("directory", "a")
    with pytest.raises(ValueError, match=r"origin must be one of .*npz.*got 'tfds'"):
        FISH.check("tfds")
    with pytest.raises(ValueError, match=r"path must be None for origin 'npz'.*'a'"):
        BIRDS.check("npz", "a")


def test_a_directory_comes_before_the_file_and_the_file_before_tfds(there):
    prepared = there / "tfds" / "birds" / "1.0.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    assert BIRDS.find("auto") == "tfds"
    (there / "data" / "birds.npz").write_bytes(b"")
    assert BIRDS.find("auto") == "npz"
    assert BIRDS.file() == there / "data" / "birds.npz"
    (there / "data" / "birds").mkdir()
    assert BIRDS.find("auto") == "directory"
    assert BIRDS.root() == there / "data" / "birds"


def test_what_is_named_is_taken_there_or_not(there):
    assert BIRDS.find("auto", path=str(there / "nowhere")) == "directory"
    assert BIRDS.root(str(there / "nowhere")) == there / "nowhere"
    for origin in ("npz", "tfds", "directory"):
        assert BIRDS.find(origin) == origin


def test_downloads_are_tfds(there, monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    assert BIRDS.find("auto") == "tfds"
    with pytest.raises(DataError, match=r"fish\.npz: not found"):
        FISH.find("auto")


def test_nothing_there_says_what_to_do(there):
    with pytest.raises(DataError, match=r"birds\.npz: not found.*or draw some birds\."):
        BIRDS.find("auto")
