"""Images as bytes and as numbers."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

Images: TypeAlias = UInt8[np.ndarray, "n side side 3"]
"""`[n, side, side, 3]` bytes: red, green and blue."""


def to_unit(images: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bytes as numbers in [0, 1].

    Example:
      >>> to_unit(np.array([0, 51], np.uint8)).tolist()
      [0.0, 0.2]
    """
    return images / 255.0


def to_bytes(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Numbers as bytes: clipped to [0, 1], scaled and truncated.

    The published sets are truncated, not rounded, which makes them darker by half a
    level on average. `to_bytes(to_unit(x))` is x.

    Example:
      >>> to_bytes(np.array([-1.0, 0.999, 2.0])).tolist()
      [0, 254, 255]
    """
    return (np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
