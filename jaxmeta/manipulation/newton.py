"""The acceleration of a step: Newton's method on MuJoCo's convex problem.

Of all accelerations a it minimises

  1/2 (a - a0)' M (a - a0) + 1/2 sum_r D_r min(J_r a - aref_r, 0)^2

where a0 is what there would be without limits and contacts (MuJoCo's documentation,
"Computation: general framework"). The second derivative is constant as long as the same
rows push, so that a few steps are enough, each to the lowest point of its line.

MuJoCo XLA's solver does so, too. This one looks at one point of a line at a time where
that looks at three, factors no matrix that it does not use, and makes a fixed number of
steps, which is what a batch waits for anyway.
"""

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Scalar
from jaxmeta.manipulation.constraint import TINY, Rows


def solve(
    rows: Rows,
    inertia: Float[Array, "dof dof"],
    free: Float[Array, " dof"],
    guess: Float[Array, " dof"],
    *,
    steps: int,
    line_steps: int,
) -> Float[Array, " dof"]:
    """The acceleration.

    Args:
      rows: what limits and contacts ask for.
      inertia: M.
      free: a0.
      guess: an acceleration that may be nearer, as that of the time step before.
      steps: of Newton's method.
      line_steps: points of a line that are looked at.

    Returns:
      `[dof]` m/s^2 or rad/s^2.

    Example:
      >>> one = lambda x: jnp.array([x])
      >>> floor = Rows(jacobian=one([1.0]), stiffness=one(3.0), wanted=one(0.0))
      >>> falling = one(-8.0)  # M a + 8 = -3 a
      >>> solve(floor, one([1.0]), falling, falling, steps=1, line_steps=1).tolist()
      [-2.0]
    """

    def lacks(a: Array) -> Array:
        return a @ rows.jacobian - rows.wanted

    def cost(a: Array) -> Scalar:
        off, lack = a - free, jnp.minimum(lacks(a), 0.0)
        return off @ inertia @ off + lack @ (rows.stiffness * lack)

    def step(_: Array, a: Array) -> Array:
        lack = lacks(a)
        pushing = jnp.where(lack < 0, rows.stiffness, 0.0)
        slope = inertia @ (a - free) + rows.jacobian @ (pushing * lack)
        bend = inertia + (rows.jacobian * pushing[None]) @ rows.jacobian.T
        way = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(bend), slope)
        return a + _lowest(rows, inertia, a - free, lack, way, line_steps) * way

    start = jnp.where(cost(guess) < cost(free), guess, free)
    return jax.lax.fori_loop(0, steps, step, start)


def _lowest(
    rows: Rows, inertia: Array, off: Array, lack: Array, way: Array, steps: int
) -> Scalar:
    """How far along a way the cost is lowest.

    Its slope rises in straight pieces. Newton's method follows them, and halves what is
    left of the line where it would leave it. The first point, where the way was meant
    to end, is 1.
    """
    change = way @ rows.jacobian
    heavy = inertia @ way
    at_start, bend = heavy @ off, heavy @ way
    stiff = rows.stiffness * change

    def look(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, far = state
        left = lack + far * change
        slope = at_start + far * bend + stiff @ jnp.minimum(left, 0.0)
        rise = bend + stiff @ jnp.where(left < 0, change, 0.0)
        before = slope < 0
        low, high = jnp.where(before, far, low), jnp.where(before, high, far)
        better = far - slope / jnp.maximum(rise, TINY)  # 0 of no way at all
        inside = (low <= better) & (better <= high)
        return low, high, jnp.where(inside, better, (low + high) / 2)

    zero = jnp.zeros_like(bend)
    state = (zero, zero + jnp.inf, zero + 1.0)
    return jax.lax.fori_loop(0, steps, look, state)[2]
