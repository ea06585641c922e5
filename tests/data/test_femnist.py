"""FEMNIST's writers: who is drawn, who is in which split, what a group is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.femnist import Femnist
from jaxmeta.data.source import DataError


def write(path, sizes):
    """LEAF's form: writer i has a grey and a class of their own."""
    users = {
        writer: {
            "x": [[1.0 - (i % 51) / 51] * 784] * size,
            "y": [i % 62] * size,
        }
        for i, (writer, size) in enumerate(sizes.items())
    }
    content = {"users": list(users), "num_samples": list(sizes.values())}
    path.write_text(json.dumps(content | {"user_data": users}))


@pytest.fixture
def eight(tmp_path):
    """Eight writers with 1 to 8 drawings, in two files; the eighth is in both."""
    names = [f"f{i:04}_{90 - i}" for i in range(8)]
    write(tmp_path / "all_data_0.json", {name: i + 1 for i, name in enumerate(names)})
    write(tmp_path / "all_data_1.json", {names[7]: 3})
    return Femnist(path=str(tmp_path), least_drawings=3, num_writers=None)


def test_writers_with_few_drawings_are_left_out(eight):
    writers = np.concatenate(list(eight.writers().values()))
    assert sorted(writers) == [f"f{i:04}_{90 - i}" for i in range(2, 8)]


def test_the_place_of_a_writer_is_the_group(eight):
    sizes = {f"f{i:04}_{90 - i}": i + 1 for i in range(7)} | {"f0007_83": 8 + 3}
    for split, points in eight.groups().items():
        writers = eight.writers()[split]
        assert points.sizes.tolist() == [sizes[writer] for writer in writers]
        for group, writer in enumerate(writers):
            images = points.inputs[points.groups == group]
            labels = points.targets[points.groups == group]
            number = int(writer[1:5])
            if number != 7:
                np.testing.assert_array_equal(images, 5 * number)
                np.testing.assert_array_equal(labels, number)
            else:  # what is in both files
                assert sorted(labels) == [0] * 3 + [7] * 8


def test_nobody_is_in_two_splits(eight):
    writers = [set(ids) for ids in eight.writers().values()]
    assert sum(map(len, writers)) == len(set.union(*writers)) == 6
    assert min(map(len, writers)) == 1


@pytest.mark.parametrize(
    ("there", "num_writers", "sizes"),
    [
        (400, 347, [262, 50, 35]),  # the published numbers
        (347, 347, [262, 50, 35]),
        (100, 347, [76, 14, 10]),  # 14.4 and 10.1 of 100
        (400, None, [302, 58, 40]),  # 57.6 and 40.3 of 400
        (400, 10, [8, 1, 1]),
        (3, None, [1, 1, 1]),
    ],
)
def test_proportions(there, num_writers, sizes, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmeta.data.femnist.find_parts", lambda path: few(there))
    source = Femnist(path=str(tmp_path), num_writers=num_writers)
    assert [len(ids) for ids in source.writers().values()] == sizes


def few(count):
    from jaxmeta.data.femnist_files import Part

    return [Part(f"f{i}", 100, lambda: None) for i in range(count)]


def test_the_draw_depends_on_the_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmeta.data.femnist.find_parts", lambda path: few(50))
    draw = lambda seed: Femnist(path=str(tmp_path), num_writers=9, split_seed=seed)
    first, other = draw(0).writers(), draw(1).writers()
    monkeypatch.setattr("jaxmeta.data.femnist.find_parts", lambda path: few(50)[::-1])
    again = draw(0).writers()
    for split in first:
        np.testing.assert_array_equal(first[split], again[split])
    assert set(np.concatenate([*first.values()])) != set(
        np.concatenate([*other.values()])
    )


def test_only_the_drawn_are_read(tmp_path, monkeypatch):
    read = []
    from jaxmeta.data.femnist_files import Drawings, Part

    def part(i):
        def load():
            read.append(f"f{i}")
            return Drawings(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))

        return Part(f"f{i}", 1, load)

    parts = [part(i) for i in range(30)]
    monkeypatch.setattr("jaxmeta.data.femnist.find_parts", lambda path: parts)
    source = Femnist(path=str(tmp_path), num_writers=4, least_drawings=1)
    source.groups()
    assert sorted(read) == sorted(np.concatenate(list(source.writers().values())))


def test_a_task_is_a_set_of_one_writer(eight):
    slots = jnp.arange(eight.num_slots("test"))
    query = eight.sample(jax.random.key(0), slots, split="test").query
    assert query.inputs.shape[1:] == (1, 50, 28, 28, 1)
    assert int(query.mask.sum()) == eight.sizes("test").sum()
    assert eight.num_classes == 62


def test_too_few_writers(eight, tmp_path):
    source = Femnist(path=str(tmp_path), least_drawings=7)
    with pytest.raises(
        DataError, match="needs 3 writers with 7 drawings or more, has 2"
    ):
        source.groups()


def test_the_data_directory_is_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"^femnist: not found; .*fed_emnist"):
        Femnist().groups()
    (tmp_path / "femnist").mkdir()
    write(tmp_path / "femnist" / "all_data_0.json", {"a": 1, "b": 1, "c": 1})
    assert Femnist(least_drawings=1).sizes("train").tolist() == [1]


def test_nowhere_to_look(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", "")
    with pytest.raises(DataError, match=r"^femnist: not found; .*MnistWriters"):
        Femnist().groups()


def test_bad_numbers():
    with pytest.raises(ValueError, match="least_drawings must be >= 1, got 0"):
        Femnist(least_drawings=0)
    for number in (2, 10_001):
        with pytest.raises(ValueError, match=f"num_writers must be from 3 .*{number}"):
            Femnist(num_writers=number)
    with pytest.raises(ValueError, match="split_seed must be >= 0, got -1"):
        Femnist(split_seed=-1)
