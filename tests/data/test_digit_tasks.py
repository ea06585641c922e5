"""Multi-task digits: what every task sees, and where the images come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxmeta.data.digit_tasks import TurnedDigits, TwoDigits, turn
from jaxmeta.data.source import DataError, settle

KEY = jax.random.key(0)
TURNED = TurnedDigits(num_tasks=4, num_examples=6, origin="digits")
TWO = TwoDigits(num_examples=6, origin="digits")


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", "")


def draw(source, slots, split="test", key=KEY):
    return source.sample(key, jnp.asarray(slots), split=split)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A data directory with a small file of MNIST's form, and what is in it."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (50_020, 4, 4), np.uint8),
        "y_train": rng.integers(0, 10, 50_020).astype(np.uint8),
        "x_test": rng.integers(0, 256, (30, 4, 4), np.uint8),
        "y_test": rng.integers(0, 10, 30).astype(np.uint8),
    }
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    np.savez(tmp_path / "mnist_writers.npz", **arrays)
    return arrays


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 180])
def test_turning_is_scipys(degrees):
    image = np.zeros((11, 11), np.float32)
    image[3:8, 4:7] = np.random.default_rng(0).uniform(size=(5, 3))
    ours = turn(jnp.asarray(image)[None], np.radians(degrees))[0]
    theirs = ndimage.rotate(image, degrees, reshape=False, order=1)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # float32 coordinates


def test_turned_tasks_see_the_same_test_images():
    tasks = draw(TURNED, range(4)).query
    images, labels = _held_out(6)
    np.testing.assert_allclose(tasks.inputs[0, ..., 0], images / 255, atol=1e-5)
    np.testing.assert_array_equal(tasks.targets[0], labels)
    for task in range(4):
        turned = turn(jnp.asarray(images / 255, jnp.float32), jnp.pi * task / 4)
        np.testing.assert_allclose(tasks.inputs[task, ..., 0], turned, atol=1e-5)
        np.testing.assert_array_equal(
            tasks.targets[task], TURNED.new_names[task][labels]
        )


def _held_out(count):
    """The first test images: three forms that nothing trains on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images[1415 : 1415 + count] * (255 / 16))
    return images, data.target[1415 : 1415 + count]


def test_new_names_are_different_permutations():
    names = TurnedDigits(num_tasks=8).new_names
    assert {tuple(sorted(row)) for row in names.tolist()} == {tuple(range(10))}
    assert len({tuple(row) for row in names.tolist()}) == 8
    np.testing.assert_array_equal(names[0], np.arange(10))


def test_two_digits_are_one_image_with_two_labels():
    tasks = draw(TWO, range(2)).query
    np.testing.assert_array_equal(tasks.inputs[0], tasks.inputs[1])
    assert np.any(tasks.targets[0] != tasks.targets[1])
    np.testing.assert_array_equal(tasks.targets[0], _held_out(6)[1])


def test_two_digits_by_hand():
    """Shrunk from 10 to 8 pixels: the mean of the canvas stays what it is."""
    data = TWO.read()["test"]
    both = draw(TWO, [0]).query.inputs[0, ..., 0]
    for i in range(6):
        canvas = np.zeros((10, 10))
        canvas[:8, :8] = data.images[i]
        other = np.zeros((10, 10))
        other[2:, 2:] = data.images[data.partners[i]]
        expected = np.maximum(canvas, other) / 255
        assert np.mean(both[i]) == pytest.approx(expected.mean(), rel=0.1)
        # The upper left corner holds nothing of the right digit, and the other way.
        assert both[i][-1, -1] == pytest.approx(expected[-2:, -2:].mean(), abs=0.35)


@pytest.mark.parametrize("source", [TURNED, TWO], ids=["turned", "two"])
def test_slots_go_through_the_test_images_once(source):
    data, num_tasks = source.read()["test"], source.num_tasks
    slots = num_tasks * np.arange(-(-source.size("test") // 6))
    labels = np.ravel(draw(source, slots).query.targets)[: len(data.labels)]
    np.testing.assert_array_equal(labels, data.labels)


@pytest.mark.parametrize("source", [TURNED, TWO], ids=["turned", "two"])
def test_training_draws_at_random_and_by_key(source):
    one, same = (draw(source, range(4), "train").query.inputs for _ in range(2))
    other = draw(source, range(4), "train", jax.random.key(1)).query.inputs
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    ids = draw(source, range(8), "train").task_id
    np.testing.assert_array_equal(ids, np.arange(8) % source.num_tasks)


def test_splits_share_no_image():
    data = TURNED.read()
    seen = [{image.tobytes() for image in data[split].images} for split in data]
    assert [len(data[split].labels) for split in data] == [1157, 258, 382]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_mnist_is_read_from_the_data_directory(mnist):
    source = settle(TurnedDigits(num_tasks=2, num_examples=5))
    assert source.origin == "npz"
    data = source.read()
    np.testing.assert_array_equal(data["train"].images, mnist["x_train"][:50_000])
    np.testing.assert_array_equal(data["validation"].labels, mnist["y_train"][50_000:])
    task = jax.tree.map(lambda x: x[0], draw(source, [0]))
    expected = mnist["x_test"][:5] / np.float32(255)
    np.testing.assert_allclose(task.query.inputs[..., 0], expected, atol=1e-6)


def test_digits_stand_in_where_no_directory_is_named(caplog):
    assert settle(TwoDigits()).origin == "digits"
    assert "MNIST was not found" in caplog.text


def test_a_directory_without_the_file_is_a_mistake(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"mnist_writers.npz is not in .*origin digits"):
        settle(TwoDigits())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x_test", np.zeros((30, 4, 5), np.uint8), "x_test must be .* square"),
        ("x_test", np.zeros((30, 5, 5), np.uint8), "of one size"),
        ("y_train", np.zeros(7, np.uint8), "each with a label"),
        ("y_test", np.full(30, 110, np.uint8), "labels up to 110"),
        ("x_test", np.zeros((30, 4, 4), np.uint16), "must be bytes"),
    ],
)
def test_a_damaged_file_is_named(mnist, tmp_path, name, value, words):
    directory = tmp_path / "damaged"
    directory.mkdir()
    np.savez(directory / "mnist_writers.npz", **{**mnist, name: value})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMETA_DATA_DIR", str(directory))
        with pytest.raises(DataError, match=f"mnist_writers.npz: .*{words}"):
            TwoDigits(origin="npz").read()


def test_a_file_with_too_few_images_is_named(mnist, tmp_path):
    few = {name: x[:2000] for name, x in mnist.items()}
    np.savez(tmp_path / "mnist_writers.npz", **few)
    with pytest.raises(DataError, match="at least 50001 square images"):
        TwoDigits(origin="npz").read()


def test_bad_numbers(untyped):
    for number in (0, 10**8):
        with pytest.raises(ValueError, match=f"from 1 to 10000, got {number}"):
            TwoDigits(num_examples=number)
        with pytest.raises(ValueError, match=f"from 1 to 1000, got {number}"):
            TurnedDigits(num_tasks=number)
    with pytest.raises(ValueError, match=r"origin must be one of .*'mnst'"):
        TwoDigits(origin="mnst")
