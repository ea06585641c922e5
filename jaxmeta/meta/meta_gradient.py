"""How the outer gradient goes through the inner steps, and what that costs.

Every choice takes the same inner steps, `v <- v - rate * grad L(v)`, but for
`Implicit`, which pulls them back to where they began. They differ in the gradient of
where the steps end, and in the memory and time that it takes:

  choice                 gradient            memory for T steps
  Unrolled(remat=False)  exact               T times the activations of a step
  Unrolled()             exact               those of one step, T times the parameters
  MixFlow()              exact               those of one step, 2 sqrt(T) times the
                                             parameters if T divides so, else up to T
  Implicit()             exact where the     those of one step
                         steps converge
  Truncated(k)           of the last k       as Unrolled() for k steps
  FirstOrder()           without second      the parameters
                         derivatives
  Reptile()              none: the way from  the parameters
                         start to end

References:
  Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning" (2017), eq. 1 and section 5.2.
  Rajeswaran, Finn, Kakade, Levine, "Meta-Learning with Implicit Gradients" (2019).
  Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms" (2018).
  Kemaev, Calian, Zintgraf, Farquhar, van Hasselt, "Scalable Meta-Learning via
  Mixed-Mode Differentiation" (2025), for MixFlow-MG.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from jaxmeta.core.loops import scan
from jaxmeta.core.types import FastParams, PyTree, Scalar

Loss: TypeAlias = Callable[[FastParams, PyTree], Scalar]
"""Of fast parameters, and of everything else that it depends on."""

Gradient: TypeAlias = Callable[[FastParams], FastParams]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaGradient(abc.ABC):
    """One way to differentiate gradient descent."""

    learns_rates: ClassVar[bool] = True
    """Whether the rates get a gradient."""

    learns_slow: ClassVar[bool] = True
    """Whether the context does."""

    second_order: ClassVar[bool] = True
    """Whether what the inner gradient alone depends on gets a gradient."""

    stepwise: ClassVar[bool] = True
    """Whether several steps are as many times one step."""

    @abc.abstractmethod
    def descend(
        self,
        loss: Loss,
        start: FastParams,
        context: PyTree,
        rates: PyTree,
        *,
        num_steps: int,
        per_step: bool,
    ) -> FastParams:
        """`num_steps` steps down `loss`, see `inner_loop.descend`."""

    def one_of_many(self, step: Callable) -> Callable:
        """A function that takes one step, for a caller who takes several himself."""
        return step

    def outer(self, start: FastParams, end: FastParams, loss: Scalar) -> Scalar:
        """What the outer loop descends, given where the steps began and ended.

        Args:
          start: fast parameters before the first step.
          end: after the last.
          loss: of the end, on other data.
        """
        del start, end
        return loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unrolled(MetaGradient):
    """The exact gradient, by reverse-mode differentiation of every step.

    Example:
      >>> Unrolled().remat
      True
    """

    remat: bool = True
    """Recompute each step in the backward pass instead of storing its activations."""

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        return _descend(
            lambda fast: jax.grad(loss)(fast, context),
            start,
            rates,
            num_steps=num_steps,
            per_step=per_step,
            remat=self.remat,
        )

    def one_of_many(self, step):
        return jax.checkpoint(step) if self.remat else step


UNROLLED = Unrolled()
"""The default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstOrder(MetaGradient):
    """The inner gradients are constants: no second derivative of any kind.

    The start gets the gradient at the end unchanged, the rates get theirs, and the
    context gets only what it has from the outer loss.
    """

    second_order: ClassVar[bool] = False

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        gradient = lambda v: jax.lax.stop_gradient(jax.grad(loss)(v, context))
        return _descend(gradient, start, rates, num_steps=num_steps, per_step=per_step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reptile(MetaGradient):
    """`start - end` in place of a gradient of the start (Nichol, Achiam, Schulman).

    The outer loss is measured and not descended, and nothing but the start is learned.
    With outer SGD of rate r the start moves by r of the way to where the steps end.
    """

    learns_rates: ClassVar[bool] = False
    learns_slow: ClassVar[bool] = False
    second_order: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        return FirstOrder().descend(
            loss, start, context, rates, num_steps=num_steps, per_step=per_step
        )

    def outer(self, start, end, loss):
        apart = lambda v, v1: jnp.square(v - jax.lax.stop_gradient(v1)).sum() / 2
        distance = sum(jax.tree.leaves(jax.tree.map(apart, start, end)))
        return jax.lax.stop_gradient(loss - distance) + distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncated(MetaGradient):
    """The exact gradient of the last steps; those before are `FirstOrder`.

    Raises:
      ValueError: for fewer than one step.
    """

    stepwise: ClassVar[bool] = False

    steps: int = 1
    """So many, >= 1; more than are taken are all of them."""

    remat: bool = True
    """As in `Unrolled`."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}.")

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        before = max(0, num_steps - self.steps)
        of = lambda part: jax.tree.map(lambda r: r[part], rates) if per_step else rates
        if before:
            start = FirstOrder().descend(
                loss,
                start,
                context,
                of(slice(before)),
                num_steps=before,
                per_step=per_step,
            )
        return Unrolled(remat=self.remat).descend(
            loss,
            start,
            context,
            of(slice(before, None)),
            num_steps=num_steps - before,
            per_step=per_step,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixFlow(MetaGradient):
    """The exact gradient, whose second derivatives are forward over reverse.

    The backward pass needs, with the gradient u of the outer loss at a step's end, the
    products `u' d grad_v L / d(v, w)`, w being the context. The Hessian is symmetric,
    so this is the derivative of `grad_(v, w) L` at v in the direction u: the forward
    derivative of a gradient in place of the reverse derivative of one. The loss must
    have a forward derivative, so no `jax.custom_vjp` in it.

    Steps are kept in blocks, of as many as there are blocks where the number of steps
    has such a divisor, and taken once more, a block at a time, on the way back: for one
    more gradient a step, `2 sqrt(T)` sets of parameters are held at once instead of T.
    """

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        _check_forward(loss, start, context)
        scaled = functools.partial(jax.tree.map, lambda rate, u: rate * u)

        @jax.custom_vjp
        def step(fast, rates, context):
            return _move(fast, rates, jax.grad(loss)(fast, context))

        def backward(saved, u):
            fast, rates, context = saved
            gradient, (hessian, mixed) = _second_derivatives(
                loss, fast, context, scaled(rates, u)
            )
            of_rates = jax.vjp(lambda rates: scaled(rates, gradient), rates)[1]
            of_fast = jax.tree.map(jnp.subtract, u, hessian)
            return of_fast, _times(-1.0, of_rates(u)[0]), _times(-1.0, mixed)

        step.defvjp(lambda *args: (step(*args), args), backward)
        size = _block_size(num_steps)

        def block(fast, rates):
            return _repeat(
                lambda fast, rates: step(fast, rates, context),
                fast,
                rates,
                num_steps=size,
                per_step=per_step,
            )

        num_blocks = num_steps // size
        if per_step:
            of_block = lambda r: r.reshape(num_blocks, size, *r.shape[1:])
            rates = jax.tree.map(of_block, rates)
        return _repeat(
            block, start, rates, num_steps=num_blocks, per_step=per_step, remat=size > 1
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Implicit(MetaGradient):
    """Gradient of the minimum of `L(v) + damping / 2 |v - start|^2` (iMAML).

    The steps go down this loss. Their gradient is the one that their end would have
    were it the minimum, whatever the path: `(H + damping)^-1` is applied by conjugate
    gradients. It is wrong by as much as the steps have not converged, and needs
    `H + damping` to be positive, and a loss that has a forward derivative (see
    `MixFlow`). The rates get none.

    Raises:
      ValueError: for a number that is not positive.
    """

    learns_rates: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False

    damping: float = 1.0
    """How strongly the start pulls, > 0; lambda in the paper."""

    solver_steps: int = 10
    """Steps of conjugate gradients, >= 1."""

    def __post_init__(self):
        if not (math.isfinite(self.damping) and self.damping > 0):
            raise ValueError(
                f"damping must be a positive finite number, got {self.damping}."
            )
        if self.solver_steps < 1:
            raise ValueError(f"solver_steps must be >= 1, got {self.solver_steps}.")

    def descend(self, loss, start, context, rates, *, num_steps, per_step):
        _check_forward(loss, start, context)
        toward = lambda g, v, v0: g + self.damping * (v - v0)

        @jax.custom_vjp
        def end(start, context, rates):
            return _descend(
                lambda v: jax.tree.map(toward, jax.grad(loss)(v, context), v, start),
                start,
                rates,
                num_steps=num_steps,
                per_step=per_step,
            )

        def forward(start, context, rates):
            fast = end(start, context, rates)
            return fast, (fast, context)

        def backward(saved, u):
            along = functools.partial(_second_derivatives, loss, *saved)
            damp = lambda h, u: h + self.damping * u
            damped = lambda u: jax.tree.map(damp, along(u)[1][0], u)
            solved, _ = cg(damped, u, maxiter=self.solver_steps)
            _, (_, mixed) = along(solved)
            return _times(self.damping, solved), _times(-1.0, mixed), None

        end.defvjp(forward, backward)
        return end(start, context, rates)


def _second_derivatives(
    loss: Loss, fast: FastParams, context: PyTree, u: FastParams
) -> tuple[FastParams, tuple[FastParams, PyTree]]:
    """Of `L(v, w)`: `grad_v L`, and of it `u' d/dv` and `u' d/dw`.

    The last two are the derivative along u in v of both gradients of L, forward over
    reverse, as second derivatives commute.
    """
    both = jax.grad(loss, (0, 1), allow_int=True)  # labels, too, are in the context
    (gradient, _), products = jax.jvp(lambda fast: both(fast, context), (fast,), (u,))
    return gradient, products


def _block_size(num_steps: int) -> int:
    """The largest divisor of `num_steps` that is at most its square root."""
    return max(d for d in range(1, math.isqrt(num_steps) + 1) if num_steps % d == 0)


def _check_forward(loss: Loss, fast: FastParams, context: PyTree) -> None:
    """Raises ValueError for a loss whose reverse derivative is its author's own."""
    if "custom_vjp" in str(jax.make_jaxpr(loss)(fast, context)):
        raise ValueError(
            "this loss has no forward derivative, which MixFlow and Implicit need: "
            "something in it has a reverse derivative of its own (jax.custom_vjp). "
            "Take the meta-gradient Unrolled."
        )


def _times(factor: float, tree: PyTree) -> PyTree:
    """`factor * tree`, but for what has no derivative."""
    none = jax.dtypes.float0
    return jax.tree.map(lambda x: x if x.dtype == none else factor * x, tree)


def _move(fast: FastParams, rates: PyTree, gradient: FastParams) -> FastParams:
    return jax.tree.map(lambda v, rate, g: v - rate * g, fast, rates, gradient)


def _descend(gradient: Gradient, start: FastParams, rates: PyTree, **settings):
    """`v <- v - rate * gradient(v)`, with the settings of `_repeat`."""
    step = lambda fast, rates: _move(fast, rates, gradient(fast))
    return _repeat(step, start, rates, **settings)


def _repeat(
    step: Callable[[FastParams, PyTree], FastParams],
    start: FastParams,
    rates: PyTree,
    *,
    num_steps: int,
    per_step: bool,
    remat: bool = False,
) -> FastParams:
    """`num_steps` times `v <- step(v, rates)`."""
    if num_steps == 1:  # nothing to scan over, nothing for remat to save
        return step(start, jax.tree.map(lambda r: r[0], rates) if per_step else rates)
    body = lambda fast, now: (step(fast, now if per_step else rates), None)
    xs = rates if per_step else None
    return scan(body, start, xs, length=num_steps, remat=remat)[0]
