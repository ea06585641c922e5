"""What a run records is the data it saw."""

import numpy as np
import pytest

from jaxmeta.core.testing import smoke_source
from jaxmeta.data.omniglot import Omniglot
from jaxmeta.data.source import settle


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """Neither files nor TFDS."""
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)
    return tmp_path


def test_without_omniglot_the_source_says_digits(caplog, monkeypatch):
    monkeypatch.delenv("JAXMETA_DATA_DIR")
    assert settle(Omniglot()) == Omniglot(origin="digits")
    assert "NOT Omniglot" in caplog.text


def test_a_file_is_found_once_and_for_all(nothing_here):
    np.savez(nothing_here / "omniglot.npz", images=np.zeros(1))
    assert settle(Omniglot(ways=3)) == Omniglot(ways=3, origin="npz")


def test_an_origin_that_was_asked_for_stays():
    assert settle(Omniglot(origin="tfds")) == Omniglot(origin="tfds")


def test_other_sources_have_nothing_to_settle():
    assert settle(smoke_source()) == smoke_source()
