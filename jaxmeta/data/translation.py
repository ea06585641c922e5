"""Synthetic 1-D regression with full or partial translation symmetry.

The targets of a task come from a locally connected layer without bias whose filters
may differ from position to position. At rank 1 they do not: the layer is a
convolution. At rank k they are mixtures of k filters, and the mixing weights are the
symmetry that all the tasks of a data set share.

Reference: Zhou, Knowles and Finn, "Meta-Learning Symmetries by Reparameterization",
ICLR 2021, section 5 (learning partial translation symmetry). Differences: tasks are
drawn afresh from the key where the original stores 10,000 of them, so no task is
seen twice and the support and query inputs are never re-split.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxmeta.core.task import DeviceSource, Task
from jaxmeta.core.types import Array, Float, Int, PRNGKey, Split
from jaxmeta.data._synthetic import regression_task, split_stream


def locally_connected(
    inputs: Float[Array, "*n size"], filters: Float[Array, "position tap"]
) -> Float[Array, "*n position"]:
    """Applies a filter of its own at every position (cross-correlation, no bias).

    `y[p] = sum_j filters[p, j] * x[p + j]`

    Args:
      inputs: `[..., size]` with `size == position + tap - 1`.
      filters: `[position, tap]` one filter per output position.

    Returns:
      `[..., position]` outputs; no padding, stride 1.

    Raises:
      ValueError: if the sizes do not fit together.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0, 4.0])
      >>> locally_connected(x, jnp.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]])).tolist()
      [3.0, 3.0, 6.0]
    """
    positions, taps = filters.shape
    if inputs.shape[-1] != positions + taps - 1:
        raise ValueError(
            f"inputs must have last size {positions + taps - 1} for filters of shape "
            f"{filters.shape}, got shape {inputs.shape}."
        )
    # A sum of shifted slices: an XLA convolution is many times slower on the CPU.
    weights = jnp.expand_dims(filters, tuple(range(inputs.ndim - 1)))
    terms = [weights[..., j] * inputs[..., j : j + positions] for j in range(taps)]
    return functools.reduce(jnp.add, terms)


def true_weight_matrix(
    filters: Float[Array, "position tap"],
) -> Float[Array, "position size"]:
    """The dense matrix `W` for which `W @ x` is `locally_connected(x, filters)`.

    `W[p, p + j] = filters[p, j]`, all else 0: what a fully connected layer would have
    to learn. A convolution makes it a banded Toeplitz matrix.

    Args:
      filters: `[position, tap]` one filter per output position.

    Returns:
      `[position, position + tap - 1]` the banded matrix, outputs first.

    Example:
      >>> true_weight_matrix(jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]]
    """
    positions, taps = filters.shape
    rows = jnp.arange(positions)[:, None]
    dense = jnp.zeros((positions, positions + taps - 1), filters.dtype)
    return dense.at[rows, rows + jnp.arange(taps)[None, :]].set(filters)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationSource(DeviceSource):
    """Tasks `y = locally_connected(x, C b)`: a convolution, or a mixture of some.

    ```text
    C = softmax(N(0, 1)^[position, rank], axis=1)    once per data set, from `seed`
    b ~ N(0, 1)^[rank, kernel_size]                  once per task
    x ~ N(0, I),   y[p] = sum_j (C b)[p, j] x[p + j]
    ```

    At rank 1, C is a column of ones. There is no label noise. Tasks are drawn from
    the key and never repeat; `split` selects an independent stream of the same
    distribution. A task has no identity, so `task_id` is always 0.

    Attributes:
      rank: how many filters a task mixes, >= 1. The paper has 1, 2 and 5.
      num_support: examples that the inner loop sees, >= 1.
      num_query: examples that the outer loss is measured on, >= 1.
      input_size: length of an input, >= kernel_size.
      kernel_size: taps of a filter, >= 1.
      seed: of the mixing matrix C. Another seed is another data set with another
        symmetry, not another sample of tasks.

    Raises:
      ValueError: if a field is out of range.

    Example:
      >>> source = TranslationSource(rank=2)
      >>> batch = source.sample(jax.random.key(0), jnp.arange(4), split="train")
      >>> batch.support.inputs.shape, batch.query.targets.shape
      ((4, 1, 70), (4, 19, 68))
      >>> TranslationSource(rank=1).zero_error
      3.0

    References:
      Zhou, Knowles and Finn (ICLR 2021), section 5.
    """

    rank: int = 1
    num_support: int = 1
    num_query: int = 19
    input_size: int = 70
    kernel_size: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "num_support", "num_query", "kernel_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2**63 - 1, got {self.seed}.")
        if self.input_size < self.kernel_size:
            raise ValueError(
                f"input_size must be >= kernel_size = {self.kernel_size}, got "
                f"{self.input_size}: lengthen the input or shorten the kernel."
            )

    @property
    def positions(self) -> int:
        """Length of a target: `input_size - kernel_size + 1`."""
        return self.input_size - self.kernel_size + 1

    @property
    def zero_error(self) -> float:
        """Expected squared error of predicting 0, for this data set's C.

        `kernel_size * mean_p sum_k C[p, k]^2`: 3 at rank 1 with 3 taps, about 1.9 at
        rank 2 and about 1 at rank 5.
        """
        power = jnp.mean(jnp.sum(jnp.square(self.load()), axis=1))
        return self.kernel_size * float(power)

    def read(self) -> Float[Array, "position rank"]:
        """The mixing matrix C: `[position, rank]`, rows sum to 1."""
        shape = (self.positions, self.rank)
        logits = jax.random.normal(jax.random.key(self.seed), shape, jnp.float32)
        return jax.nn.softmax(logits, axis=1)

    def filters(
        self, data: Float[Array, "position rank"], key: PRNGKey, *, split: Split
    ) -> Float[Array, "position tap"]:
        """The true filters `C b` of the task that `sample_task` draws from `key`.

        Args:
          data: the mixing matrix, from `load`.
          key: the task's own key; slot i of a batch has `fold_in(step_key, i)`.
          split: the split that the task was drawn from.

        Returns:
          `[position, kernel_size]`; `true_weight_matrix` makes them a dense layer.

        Example:
          >>> source = TranslationSource(input_size=5)
          >>> f = source.filters(source.load(), jax.random.key(0), split="train")
          >>> f.shape, bool(jnp.all(f[0] == f[1]))
          ((3, 3), True)
        """
        key_filters, _ = jax.random.split(split_stream(key, split))
        shape = (self.rank, self.kernel_size)
        basis = jax.random.normal(key_filters, shape, jnp.float32)
        # These are data: an accelerator's fast matrix product would add noise to them.
        return jnp.matmul(data, basis, precision=jax.lax.Precision.HIGHEST)

    def sample_task(
        self,
        data: Float[Array, "position rank"],
        key: PRNGKey,
        slot: Int[Array, ""],
        *,
        split: Split,
    ) -> Task:
        """Draws one task; pure and jittable.

        Args:
          data: the mixing matrix, from `load`.
          key: this task's own key.
          slot: not used; all tasks are drawn alike.
          split: which independent stream of tasks.

        Returns:
          Support and query `Examples` with inputs `[n, input_size]` and targets
          `[n, positions]`, and task_id 0.
        """
        del slot
        filters = self.filters(data, key, split=split)
        _, key_inputs = jax.random.split(split_stream(key, split))
        count = self.num_support + self.num_query
        shape = (count, self.input_size)
        inputs = jax.random.normal(key_inputs, shape, jnp.float32)
        return regression_task(
            inputs, locally_connected(inputs, filters), self.num_support
        )
