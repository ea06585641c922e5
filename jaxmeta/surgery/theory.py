"""When PCGrad's step is provably better than the step on the sum: two tasks.

Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient Surgery for Multi-Task Learning,
NeurIPS 2020 (arXiv 2001.06782), section 2.4 and appendix A. `g_1` and `g_2` are the
gradients of the tasks, `g` their sum, `t` the step size; the loss is the sum of both.

What the theorems do not say: condition (c) of theorem 2 implies `t >= 2 / l`, where the
plain gradient step raises the loss. The theorem lives entirely where gradient descent
overshoots, and there PCGrad's own step may raise the loss too, only by less. The
converse ("only if", theorem 3) compares bounds, not losses.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar
from jaxmeta.surgery.gram import Gram, safe_divide, unit_length


def cosines(gram: Gram) -> Float[Array, "task task"]:
    """`cos phi_ij = <g_i, g_j> / (|g_i| |g_j|)`, 0 for an absent task (definition 1).

    Example:
      >>> cosines(jnp.array([[4.0, -2.0], [-2.0, 1.0]])).tolist()
      [[1.0, -1.0], [-1.0, 1.0]]
    """
    return unit_length(gram)[0]


def magnitude_similarity(gram: Gram) -> Float[Array, "task task"]:
    """`Phi_ij = 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)`, in [0, 1] (definition 2).

    Example:
      >>> magnitude_similarity(jnp.diag(jnp.array([1.0, 9.0])))[0].tolist()
      [1.0, 0.6000000238418579]
    """
    squares = jnp.diagonal(gram)
    norms = jnp.sqrt(squares)
    both = squares[:, None] + squares[None, :]
    return safe_divide(2.0 * norms[:, None] * norms[None, :], both)


def curvature_bounding_measure(gram: Gram) -> Float[Array, "task task"]:
    """`xi_ij = (1 - cos^2) |g_i - g_j|^2 / |g_i + g_j|^2` (definition 5).

    Infinite for gradients that cancel without being parallel, which rounding alone can
    make; 0 for parallel ones.

    Example:
      >>> curvature_bounding_measure(jnp.eye(2))[0].tolist()
      [0.0, 1.0]
    """
    squares = jnp.diagonal(gram)
    both = squares[:, None] + squares[None, :]
    apart, together = both - 2.0 * gram, both + 2.0 * gram
    # Of a sum this much shorter than its terms rounding leaves nothing that is true.
    cancelled = together <= 16 * jnp.finfo(gram.dtype).eps * both
    sine = jnp.maximum(1.0 - cosines(gram) ** 2, 0.0)
    nothing = (sine == 0) | (both == 0)
    share = sine * apart / jnp.where(nothing | cancelled, 1.0, together)
    return jnp.where(nothing, 0.0, jnp.where(cancelled, jnp.inf, share))


def curvature(
    loss: Float[Array, "*shape"],
    loss_after: Float[Array, "*shape"],
    slope_along: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """`2 (L(theta') - L(theta) - <grad L, theta' - theta>)`, as in section 5.3.

    For a quadratic loss and a step `theta' = theta - t g` this is
    `t^2 H(L; theta, theta')` (definition 3); of another loss it is to second order.
    Over `|theta' - theta|^2` it is a mean curvature along the step.

    Args:
      loss: `[...]` before the step, of one task or of many.
      loss_after: `[...]` after it.
      slope_along: `[...]` the gradient's product with the step.

    Example:
      x^2 from 1 to 0, slope 2:

      >>> float(curvature(jnp.array(1.0), jnp.array(0.0), jnp.array(-2.0)))
      2.0
    """
    return 2.0 * (loss_after - loss - slope_along)


class Theorem2(NamedTuple):
    """The conditions of theorem 2, `[task, task]`; with all three PCGrad's step wins.

    Attributes:
      conflict: (a) `cos phi <= -Phi`: conflict, and gradients of different length.
      curved: (b) `l >= xi L`: the curvature is large.
      long_step: (c) `t >= 2 / (l - xi L)`, and (b) strictly: the step is long.
    """

    conflict: Bool[Array, "task task"]
    curved: Bool[Array, "task task"]
    long_step: Bool[Array, "task task"]


def theorem_2(
    gram: Gram,
    *,
    lipschitz: Float[Array, "..."],
    lower: Float[Array, "..."],
    step_size: Float[Array, "..."],
) -> Theorem2:
    """Whether `L(theta - t g^PC) <= L(theta - t g)` is guaranteed, for pairs of tasks.

    Every pair is taken as if there were no other task: `L = L_i + L_j`,
    `g = g_i + g_j`. The diagonal means nothing.

    Args:
      gram: `[task, task]` of the gradients.
      lipschitz: L, the Lipschitz constant of the gradient of the summed loss; a number,
        or `[task, task]` for every pair, like the next two.
      lower: l, with `H(L; theta, theta - t g) >= l |g|^2`.
      step_size: t.

    Example:
      >>> gram = jnp.array([[1.0, -2.7], [-2.7, 9.0]])
      >>> found = theorem_2(
      ...     gram,
      ...     lipschitz=jnp.array(1.0),
      ...     lower=jnp.array(0.9),
      ...     step_size=jnp.array(9.0),
      ... )
      >>> [bool(condition[0, 1]) for condition in found]
      [True, True, True]
    """
    room = lower - curvature_bounding_measure(gram) * lipschitz
    return Theorem2(
        conflict=cosines(gram) <= -magnitude_similarity(gram),
        curved=room >= 0,
        long_step=(room > 0) & (step_size * room >= 2.0),
    )


def theorem_1_decrease(gram: Gram, step_size: Scalar) -> Scalar:
    """`t/2 (1 - cos^2) |g|^2`: by how much PCGrad's step lowers the loss, at least.

    For two convex tasks with conflict and `t <= 1 / L`: PCGrad stops only at an optimum
    or where the gradients are exactly opposed (theorem 1).

    Args:
      gram: `[2, 2]` of the two gradients, with a negative product.
      step_size: `[]` t.

    Example:
      >>> float(theorem_1_decrease(jnp.eye(2), jnp.array(1.0)))
      1.0
    """
    return 0.5 * step_size * (1.0 - cosines(gram)[0, 1] ** 2) * gram.sum()
