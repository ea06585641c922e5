"""The axes of the device mesh, and what one device may ask of the others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh

from jaxmeta.core.types import Array

TASKS, PARAMS, DATA = "tasks", "params", "data"


def make_mesh(
    num_devices: int | None = None, *, params_shards: int = 1, data_shards: int = 1
) -> Mesh:
    """A mesh with the axis `tasks`, and `params` and `data` if longer than 1.

    Axis types are `Auto`: under JAX's default `Explicit` axes a convolutional inner
    loop does not trace.

    Args:
      num_devices: how many devices; all of them when None.
      params_shards: length of the axis `params`.
      data_shards: length of the axis `data`.

    Raises:
      ValueError: if there are fewer devices than asked for, or they do not divide over
        the axes.

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
    others = params_shards * data_shards
    if num_devices % others:
        raise ValueError(
            f"params_shards x data_shards must divide the {num_devices} devices, got "
            f"{params_shards} x {data_shards}."
        )
    axes = {PARAMS: params_shards, DATA: data_shards}
    axes = {name: size for name, size in axes.items() if size > 1}
    return jax.make_mesh(
        (num_devices // others, *axes.values()),
        (TASKS, *axes),
        axis_types=(AxisType.Auto,) * (1 + len(axes)),
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


ALONE = Shard(gather=lambda x: x, total=lambda tree: tree, own=lambda x: x)


def shard_of(num_shards: int, axes: tuple[str, ...], deterministic: bool) -> Shard:
    """What a device asks of the others along `axes`; see `Parallel.deterministic`."""

    def own(x: Array) -> Array:
        size = x.shape[0] // num_shards
        start = jax.lax.axis_index(axes) * size
        return jax.lax.dynamic_slice_in_dim(x, start, size)

    def in_order(x: Array) -> Array:
        return jax.lax.all_gather(x, axes).sum(0)

    return Shard(
        gather=lambda x: jax.lax.all_gather(x, axes, tiled=True),
        total=lambda tree: (
            jax.tree.map(in_order, tree) if deterministic else jax.lax.psum(tree, axes)
        ),
        own=own,
    )
