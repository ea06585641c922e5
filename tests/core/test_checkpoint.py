"""Checkpoints: what is read is what was written, or it is not read at all."""

import contextlib
import json
import logging
import shutil
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Parallel, TrainState
from jaxmeta.core.checkpoint import FILES, CheckpointError, Checkpoints, fingerprint


class Memory(NamedTuple):
    by_group: jax.Array
    key: jax.Array


def make_state(step: int) -> TrainState:
    """A state with all that one may hold: bfloat16, integers, a typed key, nothing."""
    rng = np.random.default_rng(step)
    params = {
        "w": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
        "empty": {},
    }
    memory = Memory(jnp.arange(5.0) + step, jax.random.key(step))
    return TrainState(
        step=jnp.int32(step),
        skipped=jnp.int32(0),
        params=params,
        model_state={"mean": jnp.full(3, 0.5 * step), "seen": jnp.int32(step)},
        opt_state=(memory, optax.adam(0.1).init(params)),
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


LIKE = make_state(0)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A directory with the checkpoints of steps 10 and 20; copy it before use."""
    directory = tmp_path_factory.mktemp("checkpoints") / "latest"
    checkpoints = Checkpoints(directory)
    for step in (10, 20):
        checkpoints.save(step, make_state(step), {"value": step / 4})
    checkpoints.close()
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of those two checkpoints, to be damaged."""
    return shutil.copytree(saved, tmp_path / "latest")


def _restore(directory, like=LIKE):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


def _restore_with_one_warning(directory):
    with pytest.warns(UserWarning, match="damaged checkpoint") as caught:
        found = _restore(directory)
    assert len(caught) == 1
    assert str(directory) in str(caught[0].message)
    return found


def test_a_round_trip_keeps_every_bit(saved):
    state, extra = _restore(saved)
    assert_same(state, make_state(20))
    assert extra == {"value": 5.0}


def test_a_restored_key_draws_the_same_numbers(saved):
    state, _ = _restore(saved)
    drawn = jax.random.normal(state.opt_state[0].key, (3,))
    expected = jax.random.normal(jax.random.key(20), (3,))
    np.testing.assert_array_equal(drawn, expected)


def test_what_is_restored_goes_where_the_example_is(saved):
    parallel = Parallel()
    state, _ = _restore(saved, parallel.replicate(LIKE))
    for leaf in jax.tree.leaves(state):
        assert len(leaf.sharding.device_set) == 4
    state, _ = _restore(saved, Parallel(num_devices=2).replicate(LIKE))
    assert len(state.params["w"].sharding.device_set) == 2
    assert_same(state, make_state(20))


def test_nothing_written_is_nothing_restored(tmp_path):
    assert _restore(tmp_path / "none") is None
    assert Checkpoints(tmp_path / "none").steps() == []
    assert not (tmp_path / "none").exists()


def test_a_state_may_be_given_away_while_it_is_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=8)
    parallel = Parallel(params_shards=2)
    state = {str(i): jnp.full((256, 256), float(i)) for i in range(4)}
    state = jax.device_put(state, parallel.placement(state))
    up = lambda state: parallel.keep(jax.tree.map(lambda x: x + 1, state))
    step = jax.jit(up, donate_argnums=0)
    for i in range(6):
        checkpoints.save(i, state)
        assert checkpoints.steps() == list(range(i + 1))
        for _ in range(3):
            state = step(state)
    checkpoints.close()
    # Of each step what it was, no later value: the newest is deleted to see the rest.
    for i in reversed(range(6)):
        found, _ = _restore(tmp_path, state)
        for name, leaf in found.items():
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, int(name) + 3 * i))
        shutil.rmtree(tmp_path / str(i))


def test_old_steps_are_removed(copy):
    checkpoints = Checkpoints(copy, keep=2)
    checkpoints.save(30, make_state(30))
    checkpoints.close()
    assert checkpoints.steps() == [20, 30]


def _files(step_dir):
    return sorted(path for path in step_dir.rglob("*") if path.is_file())


def _flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def _restore_whatever(directory):
    """What is restored, after checking that it is all of one step and said so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state, extra = _restore(directory)
    assert len(caught) <= 1
    step = 10 if caught else 20
    assert_same(state, make_state(step))
    assert extra == {"value": step / 4}
    # The damage may be of the moment: nothing is deleted.
    assert Checkpoints(directory).steps() == [10, 20]
    return step


def test_every_flipped_bit_of_any_file_is_noticed(saved, tmp_path):
    rng = np.random.default_rng(0)
    files = _files(saved / "20")
    assert len(files) >= 10
    for i in range(2 * len(files)):
        damaged = shutil.copytree(saved, tmp_path / str(i))
        _flip(damaged / files[i % len(files)].relative_to(saved), rng)
        assert _restore_whatever(damaged) == 10
        shutil.rmtree(damaged)


def test_every_lost_file_is_noticed(saved, tmp_path):
    for i, path in enumerate(_files(saved / "20")):
        damaged = shutil.copytree(saved, tmp_path / str(i))
        (damaged / path.relative_to(saved)).unlink()
        # The list of files itself may be missing, after a kill just before it.
        assert _restore_whatever(damaged) == (20 if path.name == FILES else 10)
        shutil.rmtree(damaged)


def _with_one_bit_flipped(state, index):
    leaves, tree = jax.tree.flatten(state)
    if jnp.issubdtype(leaves[index].dtype, jax.dtypes.prng_key):
        leaves[index] = jax.random.key(999)
    else:
        array = np.array(leaves[index])
        array.reshape(-1).view(np.uint8)[-1] ^= 1
        leaves[index] = jnp.asarray(array)
    return jax.tree.unflatten(tree, leaves)


@pytest.mark.parametrize("index", range(len(jax.tree.leaves(LIKE))))
def test_a_leaf_that_differs_in_one_bit_is_noticed(copy, index, tmp_path):
    """As when the disk or orbax returns well-formed but wrong numbers."""
    other = Checkpoints(tmp_path / "other")
    other.save(20, _with_one_bit_flipped(make_state(20), index))
    other.close()
    shutil.rmtree(copy / "20" / "state")
    shutil.copytree(other.directory / "20" / "state", copy / "20" / "state")
    (copy / "20" / FILES).unlink()
    assert _restore_whatever(copy) == 10


def _empty(step_dir):
    shutil.rmtree(step_dir)
    step_dir.mkdir()


def _without_meta(step_dir):
    shutil.rmtree(step_dir / "meta")


def _without_state(step_dir):
    shutil.rmtree(step_dir / "state")


def _truncated(step_dir):
    largest = max(_files(step_dir / "state"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _meta_is_no_json(step_dir):
    (step_dir / FILES).unlink()
    (path,) = [p for p in _files(step_dir / "meta") if p.read_bytes().startswith(b"{")][
        :1
    ]
    path.write_text('{"leaves": ')


def _meta_says_something_else(step_dir):
    (step_dir / FILES).unlink()
    (path,) = [p for p in _files(step_dir / "meta") if "crc32" in p.read_text()]
    meta = json.loads(path.read_text())
    meta["leaves"][".params['w']"]["crc32"] ^= 1
    path.write_text(json.dumps(meta))


def _extra_says_something_else(step_dir):
    (step_dir / FILES).unlink()
    (path,) = [p for p in _files(step_dir / "meta") if "crc32" in p.read_text()]
    meta = json.loads(path.read_text())
    meta["extra"]["value"] += 1
    path.write_text(json.dumps(meta))


def _list_of_files_is_no_json(step_dir):
    (step_dir / FILES).write_text("{")


def _one_file_more(step_dir):
    (step_dir / "state" / "d" / "more").write_text("")


DAMAGES = [
    _empty,
    _without_meta,
    _without_state,
    _truncated,
    _meta_is_no_json,
    _meta_says_something_else,
    _extra_says_something_else,
    _list_of_files_is_no_json,
    _one_file_more,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_falls_back_with_one_warning(copy, damage):
    damage(copy / "20")
    state, extra = _restore_with_one_warning(copy)
    assert_same(state, make_state(10))
    assert extra == {"value": 2.5}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_step_that_was_damaged_can_be_written_again(copy, damage):
    damage(copy / "20")
    checkpoints = Checkpoints(copy)
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        checkpoints.restore(LIKE)
    checkpoints.save(20, make_state(20))
    checkpoints.close()
    assert_same(_restore(copy)[0], make_state(20))


def test_what_is_saved_behind_a_damaged_step_is_found(copy):
    _truncated(copy / "20")
    checkpoints = Checkpoints(copy)
    with pytest.warns(UserWarning, match="going on from step 10"):
        checkpoints.restore(LIKE)
    checkpoints.save(15, make_state(15))
    checkpoints.close()
    with pytest.warns(UserWarning, match="going on from step 15"):
        state, _ = _restore(copy)
    assert_same(state, make_state(15))


@pytest.mark.parametrize("damage", [_empty, _truncated])
def test_if_every_step_is_damaged_the_error_names_the_directory(copy, damage):
    damage(copy / "10")
    damage(copy / "20")
    with pytest.raises(CheckpointError, match="delete the directory") as caught:
        _restore(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing was deleted that somebody may want to rescue.
    assert Checkpoints(copy).steps() == [10, 20]


def test_another_dtype_is_refused_and_not_cast(copy):
    wide = jax.tree.map(lambda x: x, LIKE)
    params = {**wide.params, "half": wide.params["half"].astype(jnp.float32)}
    with pytest.raises(CheckpointError, match="half"):
        _restore(copy, wide.replace(params=params))
    assert Checkpoints(copy).steps() == [10, 20]


def test_another_shape_is_refused(copy):
    params = {**LIKE.params, "w": jnp.zeros((40, 31))}
    with pytest.raises(CheckpointError, match=r"shape or dtype of .*'w'"):
        _restore(copy, LIKE.replace(params=params))


def test_another_structure_is_refused(copy):
    params = {**LIKE.params, "new": jnp.zeros(2)}
    with pytest.raises(CheckpointError, match=r"shape or dtype of .*'new'") as caught:
        _restore(copy, LIKE.replace(params=params))
    # What is whole need not be deleted.
    assert "another run directory" in str(caught.value)
    assert "delete" not in str(caught.value)


def test_a_step_that_was_being_written_is_not_seen(copy):
    # What orbax leaves behind when it is killed.
    (copy / "30.orbax-checkpoint-tmp").mkdir()
    assert Checkpoints(copy).steps() == [10, 20]
    assert int(_restore(copy)[0].step) == 20


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "latest")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint of step 1"):
        checkpoints.save(1, LIKE)
    with pytest.raises(CheckpointError, match="there is none before it"):
        checkpoints.save(1, LIKE)


def test_fingerprints_tell_dtypes_signs_and_shapes_apart():
    def prints(x):
        return fingerprint({"x": x})

    zero = np.zeros(2, np.float32)
    assert prints(zero) == prints(zero.copy())
    for other in (-zero, zero.astype(np.int32), zero[None], zero[:1]):
        assert prints(other) != prints(zero)


def test_a_fingerprint_does_not_depend_on_the_layout():
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert fingerprint({"x": x}) == fingerprint({"x": np.asfortranarray(x)})
    assert fingerprint({"x": x}) == fingerprint({"x": jnp.asarray(x)})


def test_a_step_can_be_saved_again(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for value in (1.0, 2.0):
        checkpoints.save(4, {"w": jnp.full(3, value)}, {"value": value})
    found = checkpoints.restore({"w": jnp.zeros(3)})
    checkpoints.close()
    assert found is not None
    np.testing.assert_array_equal(found[0]["w"], [2.0, 2.0, 2.0])
    assert found[1] == {"value": 2.0}


def test_asyncio_is_silent_of_writes_that_orbax_raises_alone(saved, caplog):
    with contextlib.closing(Checkpoints(saved)) as checkpoints:
        assert checkpoints.restore(LIKE) is not None
    logger = logging.getLogger("asyncio")
    logger.error("never retrieved: orbax/checkpoint/serialization.py")
    logger.error("never retrieved: mine.py")
    assert [r.message for r in caplog.records] == ["never retrieved: mine.py"]
