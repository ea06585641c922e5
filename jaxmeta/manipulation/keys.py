"""Random keys, as environments take and hold them."""

import jax
import numpy as np

from jaxmeta.core.types import Array


def typed(keys: Array) -> Array:
    """Keys with a type, from such or from raw ones, as Brax's agents pass them.

    Args:
      keys: one or many.

    Raises:
      ValueError: for what is no keys, or none of JAX's default kind, as `PRNGKey(0)`
        is; a state holds its key raw, of that kind.

    Example:
      >>> typed(jax.random.PRNGKey(0)) == jax.random.key(0)
      Array(True, dtype=bool)
    """
    if not isinstance(keys, jax.Array | np.ndarray):
        raise ValueError(f"keys must be made by jax.random.key, got {keys!r}.")
    usual = jax.random.key(0)
    raw = jax.random.key_data(usual)
    is_raw = (keys.shape[-1:], keys.dtype) == (raw.shape, raw.dtype)
    if keys.dtype != usual.dtype and not is_raw:
        raise ValueError(
            f"keys must be of JAX's default kind, {usual.dtype}, as jax.random.key(0) "
            f"is, got {keys.dtype} of shape {keys.shape}."
        )
    return jax.random.wrap_key_data(keys) if is_raw else keys
