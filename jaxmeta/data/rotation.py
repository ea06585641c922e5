"""Synthetic 2-D regression with rotation, or rotation and reflection, symmetry.

The targets of a task come from a 3x3 convolution without bias from one channel to
three orbits of channels: within an orbit, all the filters are turned (and mirrored)
copies of one steerable filter. Random weights of the steerable filters make the task.

Reference: Zhou, Knowles and Finn, "Meta-Learning Symmetries by Reparameterization",
ICLR 2021, section 5 (learning equivariance to rotations and flips), whose kernels are
the steerable ones of Weiler and Cesa, "General E(2)-Equivariant Steerable CNNs",
NeurIPS 2019. Differences: the kernel space is derived here in closed form, and tasks
are drawn afresh from the key where the original stores 10,000 (rotation) or 2,000
(with reflection) of them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxmeta.core.task import DeviceSource, Task
from jaxmeta.core.types import Array, Float, Int, PRNGKey, Split
from jaxmeta.data._synthetic import regression_task, split_stream
from jaxmeta.networks.patches import correlate

_KERNEL_SIZE = 3
_NUM_ROTATIONS = 8
_NUM_FIELDS = 3
_RING_WIDTH = 0.4
_HARMONICS = ((0, 0.0), (1, 0.0), (1, np.pi / 2), (2, 0.0), (2, np.pi / 2))
"""(frequency, phase) of the angular parts on the outer ring."""


def _orbit(
    radial: NDArray[np.float64], frequency: int, phase: float, flip: bool
) -> NDArray[np.float64]:
    """`[channel, 9]` a filter under the group, with its norm over the whole orbit."""
    offsets = np.arange(_KERNEL_SIZE) - _KERNEL_SIZE // 2
    # Angles are counter-clockwise as seen: rows count downwards, y upwards.
    angle = np.arctan2(-offsets[:, None], offsets[None, :]).ravel()
    turned = angle - 2 * np.pi / _NUM_ROTATIONS * np.arange(_NUM_ROTATIONS)[:, None]
    if flip:  # mirrored left to right first, then turned
        turned = np.concatenate([turned, np.pi - turned])
    orbit = radial * np.cos(frequency * turned - phase)
    squared_norm = 1.0 if frequency == 0 else 2.0
    return orbit * np.sqrt(squared_norm / np.sum(np.square(orbit)))


def steerable_basis(
    flip: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The space of 3x3 kernels whose output channels are orbits of one filter.

    A kernel is `K = sum_j w_j B_j`. Each of the three fields of channels has six basis
    functions, a radial part times a circular harmonic sampled on the 3x3 grid:

    ```text
    the centre pixel                                           frequency 0
    exp(-(r - 1)^2 / (2 * 0.4^2)) * cos(m * angle - phase)     m = 0, 1, 1, 2, 2
    ```

    In channel g of its field stands the function turned by `g * 45` degrees counter-
    clockwise; with `flip`, channels 8 to 15 hold the same of its left-right mirror
    image. Over a field, functions of frequency 0 have squared norm 1 and the others 2.
    On pixels the orbit is exactly closed under multiples of 90 degrees only.

    Args:
      flip: adds reflections: orbits of 16 filters in place of 8.

    Returns:
      `basis`: `[18, channel, 9]` float64, 24 channels (48 with `flip`), field after
      field; the taps of the cross-correlation are in row-major order.
      `std`: `[18]` standard deviation that each weight `w_j` has over the tasks:
      sqrt(1/2), but 1 for the functions of frequency >= 1 with `flip`.

    Example:
      >>> basis, std = steerable_basis(flip=True)
      >>> basis.shape, std[:6].round(3).tolist()
      ((18, 48, 9), [0.707, 0.707, 1.0, 1.0, 1.0, 1.0])

    References:
      Weiler and Cesa (NeurIPS 2019), section 2 and the appendix on kernel constraints.
    """
    offsets = np.arange(_KERNEL_SIZE) - _KERNEL_SIZE // 2
    radius = np.hypot(offsets[:, None], offsets[None, :]).ravel()
    ring = np.exp(-np.square(radius - 1) / (2 * _RING_WIDTH**2))
    centre = np.where(radius == 0, 1.0, 0.0)
    orbits = [_orbit(centre, 0, 0.0, flip)]
    # An angular wave has no value at the centre, where the angle is undefined.
    orbits += [
        _orbit(ring if m == 0 else ring * (radius > 0), m, phase, flip)
        for m, phase in _HARMONICS
    ]
    field = np.stack(orbits)  # [function, channel of the field, tap]
    functions, size, taps = field.shape
    basis = np.einsum("fg,jct->fjgct", np.eye(_NUM_FIELDS), field)
    basis = basis.reshape(_NUM_FIELDS * functions, _NUM_FIELDS * size, taps)
    high = 1.0 if flip else np.sqrt(0.5)
    std = [np.sqrt(0.5)] + [np.sqrt(0.5) if m == 0 else high for m, _ in _HARMONICS]
    return basis, np.tile(np.array(std), _NUM_FIELDS)


def correlate_images(
    images: Float[Array, "n height width 1"], kernel: Float[Array, "channel tap"]
) -> Float[Array, "n out_height out_width channel"]:
    """3x3 cross-correlation of one-channel images (no padding, stride 1, no bias).

    Args:
      images: `[n, height, width, 1]`, both sides >= 3.
      kernel: `[channel, 9]` filters, taps in row-major order.

    Returns:
      `[n, height - 2, width - 2, channel]`.

    Raises:
      ValueError: if the images have more than one channel or the kernel not 9 taps.

    Example:
      >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> correlate_images(image, jnp.eye(9)[:6:5]).ravel().tolist()
      [0.0, 5.0]
    """
    if images.shape[-1] != 1 or kernel.shape[-1] != _KERNEL_SIZE**2:
        raise ValueError(
            "images must be [n, height, width, 1] and the kernel [channel, 9], got "
            f"{images.shape} and {kernel.shape}."
        )
    # These are data: an accelerator's fast matrix product would add noise to them.
    with jax.default_matmul_precision("highest"):
        return correlate(images, kernel[:, None], (_KERNEL_SIZE, _KERNEL_SIZE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotationSource(DeviceSource):
    """Tasks `y = K * x`, K a random kernel of the steerable space.

    ```text
    K = sum_j w_j B_j,   w_j ~ N(0, std_j^2),   (B, std) = steerable_basis(flip)
    x ~ N(0, 1)^[n, image_size, image_size, 1],   y = correlate_images(x, K)
    ```

    There is no label noise. Tasks are drawn from the key and never repeat; `split`
    selects an independent stream of the same distribution. A task has no identity, so
    `task_id` is always 0.

    Attributes:
      flip: adds reflections: 48 output channels in place of 24.
      num_support: images that the inner loop sees, >= 1.
      num_query: images that the outer loss is measured on, >= 1.
      image_size: height and width of an input, >= 3. One image of 32x32 holds 900
        equations for the 9 unknowns of a filter: small images are the hard case.

    Raises:
      ValueError: if a field is out of range.

    Example:
      >>> source = RotationSource(image_size=5, num_query=2)
      >>> batch = source.sample(jax.random.key(0), jnp.arange(4), split="train")
      >>> batch.support.inputs.shape, batch.query.targets.shape
      ((4, 1, 5, 5, 1), (4, 2, 3, 3, 24))
      >>> round(RotationSource(flip=True).zero_error, 4)
      0.5625

    References:
      Zhou, Knowles and Finn (ICLR 2021), section 5.
    """

    flip: bool = False
    num_support: int = 1
    num_query: int = 19
    image_size: int = 32

    def __post_init__(self) -> None:
        for name in ("num_support", "num_query"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if self.image_size < _KERNEL_SIZE:
            raise ValueError(
                f"image_size must be >= {_KERNEL_SIZE}, the size of the kernel, got "
                f"{self.image_size}."
            )

    @property
    def channels(self) -> int:
        """Output channels: 24, or 48 with `flip`."""
        return _NUM_FIELDS * _NUM_ROTATIONS * (2 if self.flip else 1)

    @property
    def zero_error(self) -> float:
        """Expected squared error of predicting 0: .625, or .5625 with `flip`.

        `sum_j std_j^2 |B_j|^2 / channels`
        """
        basis, std = steerable_basis(self.flip)
        return float(np.sum(np.square(basis * std[:, None, None])) / self.channels)

    def read(self) -> Float[Array, "function channel tap"]:
        """`[18, channel, 9]` the basis, each function times its weight's std."""
        basis, std = steerable_basis(self.flip)
        return jnp.asarray(basis * std[:, None, None], jnp.float32)

    def filters(
        self, data: Float[Array, "function channel tap"], key: PRNGKey, *, split: Split
    ) -> Float[Array, "channel tap"]:
        """The true kernel K of the task that `sample_task` draws from `key`.

        Args:
          data: the scaled basis, from `load`.
          key: the task's own key; slot i of a batch has `fold_in(step_key, i)`.
          split: the split that the task was drawn from.

        Returns:
          `[channel, 9]` one filter per output channel, taps in row-major order.

        Example:
          >>> source = RotationSource()
          >>> source.filters(source.load(), jax.random.key(0), split="train").shape
          (24, 9)
        """
        key_weights, _ = jax.random.split(split_stream(key, split))
        weights = jax.random.normal(key_weights, data.shape[:1], jnp.float32)
        # These are data: an accelerator's fast matrix product would add noise to them.
        return jnp.tensordot(weights, data, axes=1, precision=jax.lax.Precision.HIGHEST)

    def sample_task(
        self,
        data: Float[Array, "function channel tap"],
        key: PRNGKey,
        slot: Int[Array, ""],
        *,
        split: Split,
    ) -> Task:
        """Draws one task; pure and jittable.

        Args:
          data: the scaled basis, from `load`.
          key: this task's own key.
          slot: not used; all tasks are drawn alike.
          split: which independent stream of tasks.

        Returns:
          Support and query `Examples` with inputs `[n, image_size, image_size, 1]` and
          targets `[n, image_size - 2, image_size - 2, channels]`, and task_id 0.
        """
        del slot
        kernel = self.filters(data, key, split=split)
        _, key_inputs = jax.random.split(split_stream(key, split))
        count = self.num_support + self.num_query
        shape = (count, self.image_size, self.image_size, 1)
        inputs = jax.random.normal(key_inputs, shape, jnp.float32)
        return regression_task(
            inputs, correlate_images(inputs, kernel), self.num_support
        )
