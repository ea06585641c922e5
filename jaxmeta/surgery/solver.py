"""Small convex problems over non-negative weights, solved inside jit.

Primal-dual interior point (Nocedal and Wright, Numerical Optimization, 2006, chapter
19): Newton's method on the optimality conditions of `min f(z), z >= 0` with the
products `z_i s_i` of weights and multipliers driven to zero. A fixed number of steps,
each a Cholesky factorisation as large as the number of tasks, so that it runs under
`vmap` and on any device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float

STEPS = 30
"""Newton steps; products shrink about tenfold each until rounding stops them."""

CENTERING = 0.1
TO_BOUNDARY = 0.99


def minimize_positive(
    objective: Callable[[Float[Array, " n"]], Float[Array, ""]],
    start: Float[Array, " n"],
    *,
    simplex: bool = False,
) -> Float[Array, " n"]:
    """The `z >= 0` (with `sum z = 1` for a simplex) where a convex function is least.

    Args:
      objective: twice differentiable and convex, with values of the order of 1.
      start: `[n]` positive; on the simplex for a simplex.
      simplex: whether the weights must sum to 1.

    Returns:
      `[n]`, every entry positive (of the order of rounding where the bound holds).

    Example:
      >>> goal = jnp.array([2.0, -1.0])
      >>> z = minimize_positive(lambda z: 0.5 * jnp.sum((z - goal) ** 2), jnp.ones(2))
      >>> print(z.round(4))
      [2. 0.]
    """
    gradient, hessian = jax.grad(objective), jax.hessian(objective)
    smallest = jnp.finfo(start.dtype).eps * 1e-2
    damping = 10.0 * len(start) * jnp.finfo(start.dtype).eps
    ones = jnp.ones_like(start)

    def newton(_, carry):
        z, s, y = carry
        target = jnp.maximum(CENTERING * jnp.mean(z * s), smallest)
        # The multipliers' equation is eliminated: z s = target, to first order.
        # Neither term moves the solution. The first keeps flat directions within
        # rounding, the second acts where the constraint holds anyway.
        matrix = hessian(z) + jnp.diag(s / z + damping) + simplex
        factor = jax.scipy.linalg.cho_factor(matrix)
        dz = jax.scipy.linalg.cho_solve(factor, target / z - gradient(z) - y)
        dy = jnp.zeros_like(y)
        if simplex:
            along = jax.scipy.linalg.cho_solve(factor, ones)
            dy = (dz.sum() + z.sum() - 1.0) / along.sum()
            dz = dz - dy * along
        ds = target / z - s - s / z * dz
        step = jnp.minimum(_longest(z, dz), _longest(s, ds))
        return z + step * dz, s + step * ds, y + step * dy

    carry = (start, ones, jnp.zeros((), start.dtype))
    return jax.lax.fori_loop(0, STEPS, newton, carry)[0]


def _longest(x: Float[Array, " n"], dx: Float[Array, " n"]) -> Float[Array, ""]:
    """The step, at most 1, that keeps `x + step dx` positive with some to spare."""
    shrinks = dx < 0
    ratio = jnp.where(shrinks, -x / jnp.where(shrinks, dx, 1.0), jnp.inf)
    return jnp.minimum(1.0, TO_BOUNDARY * ratio.min())


def on_simplex(
    objective: Callable[[Float[Array, " task"]], Float[Array, ""]],
    live: Float[Array, " task"],
) -> Float[Array, " task"]:
    """The weights on the simplex of the live tasks where a function is least.

    Args:
      objective: as in `minimize_positive`.
      live: `[task]` 1 for the tasks that may have weight.

    Example:
      >>> live = jnp.array([1.0, 1.0, 0.0])
      >>> print(on_simplex(lambda w: w[0] ** 2 + 3.0 * w[1] ** 2, live).round(2))
      [0.75 0.25 0.  ]
    """
    # An absent task costs so much that it gets nothing.
    priced = lambda w: objective(w) + 1e3 * jnp.sum((1.0 - live) * w)
    start = jnp.full_like(live, 1.0 / len(live))
    w = live * minimize_positive(priced, start, simplex=True)
    return w / jnp.maximum(w.sum(), jnp.finfo(w.dtype).tiny)
