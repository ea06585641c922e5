"""Mapping tasks onto devices.

The rule of the house is *differentiate inside, communicate outside*: a collective
never appears inside a differentiated function. `jax.shard_map` with its default
`check_vma=True` breaks that rule silently (the inner gradient of replicated
parameters is summed over devices, and the inner loop takes the step of everybody's
tasks), hence `check_vma=False` here, and a test for every learner that all backends
agree. Only the axis `data` inside a task is left to XLA, which splits sums over
examples by itself, in the forward pass and in every gradient of it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta.core.mesh import ALONE, DATA, PARAMS, TASKS, make_mesh, shard_of
from jaxmeta.core.types import Array, Backend

BACKENDS = ("loop", "vmap", "pmap", "shard_map")


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
    """Devices in use, for pmap and shard_map; all when None."""

    params_shards: int = 1
    """Devices that share one copy of the parameters and of the optimiser's state
    between steps, each with tasks of its own (FSDP); for shard_map."""

    data_shards: int = 1
    """Devices that share the examples of one task; for shard_map."""

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
        for name in (
            "num_devices",
            "task_batch_size",
            "params_shards",
            "data_shards",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1 or None, got {value}.")
        if self.params_shards * self.data_shards > 1:
            if self.backend != "shard_map":
                raise ValueError(
                    "params_shards and data_shards need the backend 'shard_map', got "
                    f"{self.backend!r}."
                )
            if self.deterministic:
                raise ValueError(
                    "deterministic needs params_shards and data_shards of 1: what "
                    "those devices find is added up by XLA, in its own order."
                )

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The mesh of this setting; one device for loop and vmap."""
        alone = self.backend in ("loop", "vmap")
        return make_mesh(
            1 if alone else self.num_devices,
            params_shards=self.params_shards,
            data_shards=self.data_shards,
        )

    @property
    def num_shards(self) -> int:
        """How many devices share the tasks."""
        return self.mesh.shape[TASKS] * self.params_shards

    @property
    def _axes(self) -> tuple[str, ...]:
        """The axes that tasks are spread over."""
        return (TASKS, PARAMS) if self.params_shards > 1 else (TASKS,)

    def _rows(self, *others: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, P(self._axes, *others))

    def check_divisible(self, num_tasks: int, name: str = "num_tasks") -> None:
        """Raises ValueError unless every device gets equally many tasks."""
        if num_tasks % self.num_shards:
            raise ValueError(
                f"{name} must be a multiple of the {self.num_shards} devices that "
                f"share tasks, got {num_tasks}; change it or set parallel.num-devices."
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of `tree` on every device of the mesh."""
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def placement(self, state: Any) -> Any:
        """Where what lasts from step to step is kept: a sharding for every leaf.

        Leaves are whole on every device, or in `params_shards` shares along the longest
        axis that divides.
        """
        return jax.tree.map(
            lambda leaf: self._by_column(jnp.shape(leaf), 0, PARAMS), state
        )

    def keep(self, state: Any) -> Any:
        """Puts results into their `placement`, inside `jit`."""
        if not self._is_spread:
            return state
        return jax.lax.with_sharding_constraint(state, self.placement(state))

    def jit_step(self, step: Callable, state: Any, **settings: Any) -> Callable:
        """Compiles `(state, ...) -> (state, ...)` so that it can be called again.

        The state is given away, and what comes back lies as it came. What `keep` asks
        for within a loop, XLA does not keep to for what the loop returns.

        Args:
          step: what to compile.
          state: the state, or its shapes.
          **settings: of `jax.jit`.
        """
        kept = self.placement(state) if self._is_spread else None
        return jax.jit(step, donate_argnums=0, out_shardings=(kept, None), **settings)

    def split_rows(self, tree: Any) -> Any:
        """Spreads the leading (task) axis of `tree` over the mesh."""
        return jax.device_put(tree, self._rows())

    def split_examples(self, tasks: Any) -> Any:
        """Spreads the second axis of tasks over the axis `data`, inside `jit`.

        That of a leaf of which it does not divide is whole on every device.

        Raises:
          ValueError: if it divides of none.
        """
        if self.data_shards == 1:
            return tasks
        divides = lambda leaf: leaf.ndim > 1 and leaf.shape[1] % self.data_shards == 0
        if not any(map(divides, jax.tree.leaves(tasks))):
            lengths = {
                leaf.shape[1] for leaf in jax.tree.leaves(tasks) if leaf.ndim > 1
            }
            raise ValueError(
                f"data_shards ({self.data_shards}) must divide a number of examples of "
                f"a task; there are {', '.join(map(str, sorted(lengths)))}."
            )
        place = lambda leaf: self._rows(DATA) if divides(leaf) else self._rows()
        return jax.lax.with_sharding_constraint(tasks, jax.tree.map(place, tasks))

    def draw_rows(self, draw: Callable[[Array], Any], slots: Array) -> Any:
        """Spreads what is drawn for `slots`, every process drawing its own alone.

        Args:
          draw: gives a tree of `[slot, ...]` for `[slot]` numbers.
          slots: `[row]`, the same in every process.
        """
        if jax.process_count() == 1:
            return self.split_rows(draw(slots))
        sharding = self._rows()
        # Along the axis `data` several devices hold the same rows.
        first = lambda index: (index[0].start or 0) if index else 0
        mine = sharding.addressable_devices_indices_map(slots.shape).values()
        starts = sorted({first(index) for index in mine})
        size = len(slots) // self.num_shards
        drawn = draw(jnp.concatenate([slots[i : i + size] for i in starts]))

        def whole(leaf: Array) -> Array:
            blocks = np.split(np.asarray(leaf), len(starts))
            local = dict(zip(starts, blocks, strict=True))
            return jax.make_array_from_callback(
                (*slots.shape, *leaf.shape[1:]),
                sharding,
                lambda index: local[first(index)],
            )

        return jax.tree.map(whole, drawn)

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
        shardings = jax.tree.map(
            lambda leaf: self._by_column(leaf.shape, first_axis, *self._axes), tree
        )
        return jax.lax.with_sharding_constraint(tree, shardings)

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
        by_mesh = self.backend in ("pmap", "shard_map") and not self._is_pmapped
        return by_mesh and self.mesh.size > 1

    @property
    def _is_pmapped(self) -> bool:
        """Whether `jax.pmap` is called.

        With several processes it is for what each has of its own, which is nothing that
        a compiled program could call; there `shard_map`, of which JAX makes it, does.
        """
        return self.backend == "pmap" and jax.process_count() == 1

    def _by_column(
        self, shape: tuple[int, ...], first_axis: int, *names: str
    ) -> NamedSharding:
        """The longest axis that divides over the devices of the named mesh axes."""
        size = math.prod(self.mesh.shape.get(name, 1) for name in names)
        axes = [i for i in range(first_axis, len(shape)) if shape[i] % size == 0]
        if not axes or size == 1:
            return NamedSharding(self.mesh, P())
        longest = max(axes, key=lambda i: shape[i])
        return NamedSharding(self.mesh, P(*[None] * longest, names))

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
            return functools.partial(body, ALONE)
        shard = shard_of(self.num_shards, self._axes, self.deterministic)
        body = functools.partial(body, shard)
        if self._is_pmapped:
            return self._pmapped(body)
        return self._shard_mapped(body)

    def _shard_mapped(self, body: Callable) -> Callable:
        def mapped(shared, *batch):
            self.check_divisible(_num_rows(batch))
            return jax.shard_map(
                body,
                mesh=self.mesh,
                in_specs=(P(), *(P(self._axes) for _ in batch)),
                out_specs=(P(), P(self._axes)),
                axis_names=set(self._axes),
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
        run: prefer "shard_map", which also takes its place where there are several
        processes. The numbers are the same.
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
