"""Every type alias of the library, in one place.

Names say what a value *means*; jaxtyping strings say its shape. The axis name
`task` is the leading axis of a batch of tasks.
"""

from typing import Any, Literal, TypeAlias

from jaxtyping import Array, Bool, Float, Int, Key, PyTree

PRNGKey: TypeAlias = Key[Array, ""]
"""One typed key, made by `jax.random.key`."""

Scalar: TypeAlias = Float[Array, ""]

Params: TypeAlias = PyTree
"""Meta-parameters: what the outer loop learns. A pytree of float arrays."""

FastParams: TypeAlias = PyTree
"""Adapted parameters: what the inner loop returns. Same structure as its start."""

ModelState: TypeAlias = PyTree
"""Running statistics that a method needs at test time; `()` for most learners."""

Adapted: TypeAlias = Any
"""What `Learner.adapt` returns. Opaque: fast weights, a context, batch statistics."""

Split: TypeAlias = Literal["train", "validation", "test"]

Precision: TypeAlias = Literal["highest", "high", "default", "BF16_BF16_F32"]
"""Of products, in JAX's own words: `jax.default_matmul_precision`. The last one is a
`jax.lax.DotAlgorithmPreset` of accelerators, which convolutions take for "default". A
CPU multiplies in float32 whatever else is asked."""

Backend: TypeAlias = Literal["loop", "vmap", "pmap", "shard_map"]

TaskIds: TypeAlias = Int[Array, " task"]
TaskLosses: TypeAlias = Float[Array, " task"]
TaskWeights: TypeAlias = Float[Array, " task"]

__all__ = [
    "Adapted",
    "Array",
    "Backend",
    "Bool",
    "FastParams",
    "Float",
    "Int",
    "Key",
    "ModelState",
    "PRNGKey",
    "Params",
    "Precision",
    "PyTree",
    "Scalar",
    "Split",
    "TaskIds",
    "TaskLosses",
    "TaskWeights",
]
