"""What is kept on disk, and what happens when it is damaged or cannot be kept."""

import logging

import numpy as np
import pytest

from jaxmeta.data.disk_cache import cache_dir, kept_bytes


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    directory = tmp_path / "deep" / "kept"
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(directory))
    return directory


class Maker:
    """Makes the same bytes, and counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def use(make, name="a"):
    found = kept_bytes(name, (2, 3, 4), make)
    np.testing.assert_array_equal(found, np.arange(24).reshape(2, 3, 4))
    assert found.dtype == np.uint8


def test_it_is_made_once(kept, caplog):
    make = Maker()
    use(make)
    use(make)
    assert make.calls == 1
    assert [path.name for path in kept.iterdir()] == ["a"]
    assert (kept / "a").stat().st_size == 32 + 24
    use(make, "b")
    assert make.calls == 2
    assert not caplog.records


def flip(content):
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


@pytest.mark.parametrize(
    "damage",
    [flip, lambda x: x[:-1], lambda x: x[:10], lambda x: b"", lambda x: x + b"0"],
    ids=["flipped", "cut", "no digest", "empty", "longer"],
)
def test_what_is_damaged_is_made_again(kept, caplog, damage):
    make = Maker()
    use(make)
    whole = (kept / "a").read_bytes()
    (kept / "a").write_bytes(damage(whole))
    use(make)
    assert make.calls == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{kept / 'a'} is damaged; it is made again." in caplog.text
    use(make)
    assert make.calls == 2
    assert (kept / "a").read_bytes() == whole


def test_what_is_kept_under_another_shape_is_made_again(kept):
    kept_bytes("a", (3,), lambda: np.zeros(3, np.uint8))
    make = Maker()
    use(make)
    assert make.calls == 1


def test_what_is_not_contiguous(kept):
    make = lambda: np.arange(6, dtype=np.uint8).reshape(2, 3).T
    np.testing.assert_array_equal(kept_bytes("a", (3, 2), make), make())
    again = kept_bytes("a", (3, 2), lambda: pytest.fail("made again"))
    np.testing.assert_array_equal(again, [[0, 3], [1, 4], [2, 5]])


def test_a_directory_that_cannot_be_written_to(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "file" / "kept"))
    make = Maker()
    use(make)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be kept" in caplog.text
    assert "JAXMETA_CACHE_DIR" in caplog.text
    use(make)
    assert make.calls == 2


def test_what_cannot_be_read_is_made_again(kept, caplog):
    (kept / "a").mkdir(parents=True)
    make = Maker()
    use(make)
    assert make.calls == 1
    assert "cannot be read" in caplog.text
    # Nothing half done stays behind.
    assert [path.name for path in kept.iterdir()] == ["a"]


def test_a_failure_keeps_nothing(kept):
    with pytest.raises(ZeroDivisionError):
        kept_bytes("a", (1,), lambda: 1 // 0)
    assert not kept.exists()


def test_without_a_setting_it_is_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("JAXMETA_CACHE_DIR")
        else:
            monkeypatch.setenv("JAXMETA_CACHE_DIR", value)
        assert cache_dir() == tmp_path / ".cache" / "jaxmeta"


def test_without_a_home_nothing_is_kept(monkeypatch, caplog):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", "~no_such_user/kept")
    make = Maker()
    use(make)
    assert make.calls == 1
    assert "is not kept" in caplog.text
