"""Mapping tasks onto devices: the only file that names a mesh axis.

The rule of the house is *differentiate inside, communicate outside*: a collective
never appears inside a differentiated function. `jax.shard_map` with its default
`check_vma=True` breaks that rule silently (the inner gradient of replicated
parameters is summed over devices, and the inner loop takes the step of everybody's
tasks), hence `check_vma=False` here, and a test for every learner that all backends
agree.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta.core.types import Array, Backend

TASKS = "tasks"
BACKENDS = ("loop", "vmap", "pmap", "shard_map")


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh with the single axis `tasks` over the first `num_devices` devices.

    Axis types are `Auto`: under JAX's default `Explicit` axes a convolutional inner
    loop does not trace.

    Args:
      num_devices: how many devices; all of them when None.

    Raises:
      ValueError: if there are fewer devices than asked for.

    Example:
      >>> dict(make_mesh(1).shape)
      {'tasks': 1}
    """
    devices = jax.devices()
    if num_devices is None:
        num_devices = len(devices)
    if not 1 <= num_devices <= len(devices):
        raise ValueError(
            f"num_devices must be between 1 and {len(devices)} (the devices present),"
            f" got {num_devices}."
        )
    return jax.make_mesh(
        (num_devices,),
        (TASKS,),
        axis_types=(AxisType.Auto,),
        devices=devices[:num_devices],
    )


class Shard(NamedTuple):
    """What one device may ask of the others, outside any differentiated function.

    Attributes:
      gather: `[local, ...] -> [task, ...]`, everybody's rows.
      total: a pytree summed over devices.
      own: `[task, ...] -> [local, ...]`, this device's rows.
    """

    gather: Callable[[Array], Array]
    total: Callable[[Any], Any]
    own: Callable[[Array], Array]


_ALONE = Shard(gather=lambda x: x, total=lambda tree: tree, own=lambda x: x)


def _one_of(num_shards: int, deterministic: bool) -> Shard:
    def own(x: Array) -> Array:
        size = x.shape[0] // num_shards
        start = jax.lax.axis_index(TASKS) * size
        return jax.lax.dynamic_slice_in_dim(x, start, size)

    def in_order(x: Array) -> Array:
        return jax.lax.all_gather(x, TASKS).sum(0)

    return Shard(
        gather=lambda x: jax.lax.all_gather(x, TASKS, tiled=True),
        total=lambda tree: (
            jax.tree.map(in_order, tree) if deterministic else jax.lax.psum(tree, TASKS)
        ),
        own=own,
    )


def _num_rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """How a batch of tasks is spread over devices.

    Raises:
      ValueError: at construction, for an unknown backend or a number below 1.

    Example:
      >>> Parallel(backend="vmap").num_shards
      1
    """

    backend: Backend = "shard_map"
    """loop (Python, for debugging), vmap (one device), pmap or shard_map (many)."""

    num_devices: int | None = None
    """Devices on the task axis, for pmap and shard_map; all when None."""

    task_batch_size: int | None = None
    """Tasks that are in memory at a time on one device; all when None."""

    deterministic: bool = False
    """Add up what devices found in their order, so that a step is the same, bit for
    bit, however many processes share them; every device then hears all of it."""

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise ValueError(
                f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}."
            )
        for name in ("num_devices", "task_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1 or None, got {value}.")

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The mesh of this setting; one device for loop and vmap."""
        alone = self.backend in ("loop", "vmap")
        return make_mesh(1 if alone else self.num_devices)

    @property
    def num_shards(self) -> int:
        """How many devices share the tasks."""
        return self.mesh.shape[TASKS]

    def check_divisible(self, num_tasks: int, name: str = "num_tasks") -> None:
        """Raises ValueError unless every device gets equally many tasks."""
        if num_tasks % self.num_shards:
            raise ValueError(
                f"{name} must be a multiple of the {self.num_shards} devices on the "
                f"task axis, got {num_tasks}; change it or set parallel.num-devices."
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of `tree` on every device of the mesh."""
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def split_rows(self, tree: Any) -> Any:
        """Spreads the leading (task) axis of `tree` over the mesh."""
        return jax.device_put(tree, NamedSharding(self.mesh, P(TASKS)))

    def draw_rows(self, draw: Callable[[Array], Any], slots: Array) -> Any:
        """Spreads what is drawn for `slots`, every process drawing its own alone.

        Args:
          draw: gives a tree of `[slot, ...]` for `[slot]` numbers.
          slots: `[row]`, the same in every process.
        """
        if jax.process_count() == 1:
            return self.split_rows(draw(slots))
        sharding = NamedSharding(self.mesh, P(TASKS))
        mine = sharding.addressable_devices_indices_map(slots.shape).values()
        first = min(row[0].start or 0 for row in mine if row)
        num_rows = len(slots) * len(mine) // self.num_shards
        drawn = draw(slots[first : first + num_rows])
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(
                sharding, leaf, (*slots.shape, *leaf.shape[1:])
            ),
            drawn,
        )

    def split_columns(self, tree: Any, *, first_axis: int = 1) -> Any:
        """Spreads leaves by parameter: `[task, *p]` over the longest axis of `p`.

        For use inside `jit`. Every device then holds some columns of all tasks, so
        that products between tasks need no more than a sum over devices. Left to
        itself XLA would gather all gradients everywhere. A leaf of which no axis
        divides over the devices is gathered.

        Args:
          tree: any pytree of arrays.
          first_axis: the first axis of the parameters: 1 after a task axis, else 0.
        """
        if not self._is_spread:
            return tree
        if self.deterministic:
            return self.gather(tree)
        return jax.tree.map(lambda leaf: self._by_column(leaf, first_axis), tree)

    def gather(self, tree: Any) -> Any:
        """Makes arrays whole on every device again, inside `jit`."""
        if not self._is_spread:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, P()))

    def in_order(self, tree: Any) -> Any:
        """Rows that are about to be added up, whole where the order matters."""
        return self.gather(tree) if self.deterministic else tree

    @property
    def _is_spread(self) -> bool:
        return self.backend == "shard_map" and self.num_shards > 1

    def _by_column(self, leaf: Array, first_axis: int) -> Array:
        axes = range(first_axis, leaf.ndim)
        axes = [i for i in axes if leaf.shape[i] % self.num_shards == 0]
        spec: list[str | None] = [None] * leaf.ndim
        if axes:
            spec[max(axes, key=lambda i: leaf.shape[i])] = TASKS
        sharding = NamedSharding(self.mesh, P(*spec))
        return jax.lax.with_sharding_constraint(leaf, sharding)

    def over_local_tasks(self, fn: Callable) -> Callable:
        """Maps `fn(shared, *one)` over the rows that one device holds.

        With `task_batch_size` the rows go through in blocks, each recomputed in the
        backward pass, so that memory is that of one block.
        """

        def mapped(shared, *batch):
            num_tasks = _num_rows(batch)
            if self.backend == "loop":
                rows = [
                    fn(shared, *jax.tree.map(lambda x, i=i: x[i], batch))
                    for i in range(num_tasks)
                ]
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
            if self.task_batch_size is None or self.task_batch_size >= num_tasks:
                return jax.vmap(lambda row: fn(shared, *row))(batch)
            block = jax.checkpoint(fn)
            return jax.lax.map(
                lambda row: block(shared, *row), batch, batch_size=self.task_batch_size
            )

        return mapped

    def on_shards(self, body: Callable) -> Callable:
        """Runs `body(shard, shared, *batch) -> (same, rows)` once on every device.

        Args:
          body: sees `shared` whole and its own rows of `batch`; returns what is the
            same on all devices (it made it so with `shard.total`) and what has a
            leading axis of its own rows.

        Returns:
          `(shared, *batch) -> (same, rows)` on whole arrays.
        """
        if self.backend in ("loop", "vmap"):
            return functools.partial(body, _ALONE)
        body = functools.partial(body, _one_of(self.num_shards, self.deterministic))
        if self.backend == "pmap":
            return self._pmapped(body)
        return self._shard_mapped(body)

    def _shard_mapped(self, body: Callable) -> Callable:
        def mapped(shared, *batch):
            self.check_divisible(_num_rows(batch))
            return jax.shard_map(
                body,
                mesh=self.mesh,
                in_specs=(P(), *(P(TASKS) for _ in batch)),
                out_specs=(P(), P(TASKS)),
                check_vma=False,
            )(shared, *batch)

        return mapped

    def _pmapped(self, body: Callable) -> Callable:
        def mapped(shared, *batch):
            num_rows = _num_rows(batch)
            self.check_divisible(num_rows)
            # Not -1, which a leaf without elements leaves undetermined.
            local = num_rows // self.num_shards
            split = lambda x: x.reshape(self.num_shards, local, *x.shape[1:])
            join = lambda x: x.reshape(num_rows, *x.shape[2:])
            same, rows = jax.pmap(
                body,
                axis_name=TASKS,
                in_axes=(None, *(0 for _ in batch)),
                out_axes=(None, 0),
                devices=list(self.mesh.devices.flat),
            )(shared, *jax.tree.map(split, batch))
            return same, jax.tree.map(join, rows)

        return mapped


def map_tasks(
    fn: Callable,
    backend: Backend = "shard_map",
    *,
    num_devices: int | None = None,
    task_batch_size: int | None = None,
) -> Callable:
    """Turns a function of ONE task into a function of a batch of tasks.

    Args:
      fn: `fn(shared, *one)`, pure. `shared` (parameters, say) is the same for all
        tasks; the other arguments belong to one task. It may differentiate as it
        likes and must not communicate.
      backend: "loop" is a Python loop to debug with, "vmap" one device, "shard_map"
        all devices (`jax.shard_map` of `jax.vmap`), and "pmap" the same through
        `jax.pmap`, which JAX keeps in maintenance mode and pods in the field still
        run: prefer "shard_map". The numbers are the same.
      num_devices: devices to use, for "pmap" and "shard_map"; all when None.
      task_batch_size: tasks in memory at a time on one device; all when None.

    Returns:
      `mapped(shared, *batch)`: every leaf of `batch` and of the result has a leading
      `[task]` axis, a multiple of the number of devices.

    Raises:
      ValueError: for an unknown backend, or tasks that do not divide over devices.

    Example:
      >>> scale = map_tasks(lambda weight, x: weight * x.sum(), "vmap")
      >>> scale(2.0, jnp.ones((3, 4))).tolist()
      [8.0, 8.0, 8.0]
    """
    parallel = Parallel(
        backend=backend, num_devices=num_devices, task_batch_size=task_batch_size
    )
    return map_tasks_with(parallel, fn)


def map_tasks_with(parallel: Parallel, fn: Callable) -> Callable:
    """`map_tasks` with its settings as one `Parallel` object."""
    over_tasks = parallel.over_local_tasks(fn)
    mapped = parallel.on_shards(
        lambda shard, shared, *batch: ((), over_tasks(shared, *batch))
    )
    return lambda shared, *batch: mapped(shared, *batch)[1]
