"""Mapping tasks onto devices, against Python loops in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxmeta import Parallel, map_tasks
from jaxmeta.core.mesh import TASKS, make_mesh
from jaxmeta.core.parallel import BACKENDS

MANY = ("pmap", "shard_map")

# A few float32 operations on numbers of order 1.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def _batch(num_tasks):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_tasks, 3)).astype(np.float32)
    return x, np.arange(num_tasks, dtype=np.float32)


def _scale(shared, x, y):
    return {"outer": shared["w"] * x, "inner": (shared["w"] * x).sum() + y}


def _squared_distance_gradient(shared, x):
    return jax.grad(lambda w: jnp.sum((w - x) ** 2))(shared)


W = {"w": np.array([1.0, -2.0, 0.5], np.float32)}


def test_there_are_four_devices():
    assert jax.device_count() == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_equals_a_python_loop(backend):
    x, y = _batch(8)
    mapped = jax.jit(map_tasks(_scale, backend))(W, x, y)
    for i in range(8):
        np.testing.assert_allclose(mapped["outer"][i], W["w"] * x[i], **CLOSE)
        expected = (W["w"] * x[i]).sum() + i
        np.testing.assert_allclose(mapped["inner"][i], expected, **CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_micro_batches_change_nothing_even_if_they_do_not_divide(backend, size):
    # 12 tasks are 3 on a device: 2 divides neither, 5 is more than a device has.
    x, y = _batch(12)
    mapped = jax.jit(map_tasks(_scale, backend, task_batch_size=size))(W, x, y)
    np.testing.assert_allclose(mapped["outer"], W["w"] * x, **CLOSE)
    np.testing.assert_allclose(mapped["inner"], (W["w"] * x).sum(1) + y, **CLOSE)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_inside_is_that_of_its_own_task(backend, size):
    x, _ = _batch(12)
    mapped = map_tasks(_squared_distance_gradient, backend, task_batch_size=size)
    np.testing.assert_allclose(jax.jit(mapped)(W["w"], x), 2 * (W["w"] - x), **CLOSE)


@pytest.mark.parametrize("backend", MANY)
def test_an_inner_gradient_is_not_summed_over_devices(backend):
    """The trap of `check_vma=True`: everybody's gradient in everybody's inner loop."""

    def meta_loss(w, support, query):
        inner = jax.grad(lambda v: jnp.sum((v - support) ** 2))(w)
        return jnp.sum((w - 0.25 * inner - query) ** 2)

    support, _ = _batch(4)
    query = support[::-1].copy()
    # w - 0.25 * 2 (w - s) is half way between w and s.
    expected = (((W["w"] + support) / 2 - query) ** 2).sum(1)
    mapped = jax.jit(map_tasks(meta_loss, backend))(W["w"], support, query)
    np.testing.assert_allclose(mapped, expected, **CLOSE)
    # What the sum over four devices would have given, to show that it would be seen.
    summed = 2 * (W["w"] - support).sum(0)
    wrong = ((W["w"] - 0.25 * summed - query) ** 2).sum(1)
    assert np.abs(wrong - expected).max() > 1


@pytest.mark.parametrize("num_devices", [1, 2, 4])
@pytest.mark.parametrize("backend", MANY)
def test_fewer_devices_give_the_same_numbers(backend, num_devices):
    x, y = _batch(4)
    mapped = jax.jit(map_tasks(_scale, backend, num_devices=num_devices))(W, x, y)
    np.testing.assert_allclose(mapped["inner"], (W["w"] * x).sum(1) + y, **CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_and_keys_can_be_mapped(backend):
    keys = jax.random.split(jax.random.key(0), 4)
    draw = lambda offset, key, i: jax.random.randint(key, (), 0, 1000) + offset + i
    mapped = jax.jit(map_tasks(draw, backend))(jnp.int32(7), keys, jnp.arange(4))
    expected = [int(jax.random.randint(keys[i], (), 0, 1000)) + 7 + i for i in range(4)]
    assert mapped.tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_body_gathers_totals_and_takes_its_own_rows(backend):
    def body(shard, shared, x):
        everybody = shard.gather(x)
        return shard.total((x * shared).sum()), shard.own(everybody * 10) + x

    same, rows = jax.jit(Parallel(backend=backend).on_shards(body))(2.0, jnp.arange(8))
    assert same.tolist() == 56.0
    assert rows.tolist() == [11 * i for i in range(8)]


def test_the_order_of_gathered_rows_is_the_order_of_tasks():
    def body(shard, shared, x):
        return shard.gather(x), x + shared

    same, _ = jax.jit(Parallel().on_shards(body))(0, jnp.arange(8))
    assert same.tolist() == list(range(8))


# Placement.


def test_replicate_and_split_rows_place_as_they_say():
    parallel = Parallel()
    copied, rows = parallel.replicate(W)["w"], parallel.split_rows(jnp.arange(8))
    assert copied.sharding.spec == P()
    assert rows.sharding.spec == P(TASKS)
    assert len(copied.sharding.device_set) == len(rows.sharding.device_set) == 4
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2,)}


def test_mesh_axes_are_auto():
    # Under Explicit axes a convolutional inner loop does not trace.
    assert make_mesh().axis_types == (AxisType.Auto,)


def test_loop_and_vmap_use_one_device():
    for backend in ("loop", "vmap"):
        assert Parallel(backend=backend).num_shards == 1
    assert Parallel().num_shards == 4
    assert Parallel(num_devices=3).num_shards == 3


def test_settings_are_equal_and_hashable_after_their_mesh_was_made():
    used, fresh = Parallel(num_devices=2), Parallel(num_devices=2)
    assert used.mesh.shape == {TASKS: 2}
    assert used == fresh
    assert hash(used) == hash(fresh)


# Errors.


@pytest.mark.usefixtures("untyped")
def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="loop, vmap, pmap, shard_map, got 'jit'"):
        map_tasks(_scale, "jit")


@pytest.mark.parametrize("backend", MANY)
def test_tasks_that_do_not_divide_are_refused_with_both_numbers(backend):
    x, y = _batch(6)
    with pytest.raises(ValueError, match=r"multiple of the 4 devices .* got 6"):
        map_tasks(_scale, backend)(W, x, y)


def test_check_divisible_names_the_setting():
    Parallel().check_divisible(8, "tasks_per_step")
    with pytest.raises(ValueError, match="tasks_per_step must be a multiple of the 4"):
        Parallel().check_divisible(10, "tasks_per_step")


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["num_devices", "task_batch_size"])
def test_counts_below_one_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be >= 1 or None, got {value}"):
        Parallel(**{name: value})


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"between 1 and 4 .* got 99"):
        _ = Parallel(num_devices=99).mesh
    with pytest.raises(ValueError, match="got 0"):
        make_mesh(0)
