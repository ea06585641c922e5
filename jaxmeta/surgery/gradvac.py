"""GradVac: gradients pulled together to the similarity that they usually have.

Wang, Tsvetkov, Firat, Cao, Gradient Vaccine: Investigating and Improving Multi-task
Optimization in Massively Multilingual Models, ICLR 2021 (arXiv 2010.05874),
algorithm 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.checks import check_num_tasks
from jaxmeta.surgery.gram import live_tasks, safe_divide
from jaxmeta.surgery.projection import random_orders
from jaxmeta.surgery.reduction import Reduction, check_reduction, reduced
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradVac(Weighting):
    """PCGrad with a target: a pair meets until its cosine is what it is on average.

    When task i meets task j, with c = cos(g_i', g_j) below the running average phi_ij,
    `g_i' += |g_i'| (phi sqrt(1 - c^2) - c sqrt(1 - phi^2)) / (|g_j| sqrt(1 - phi^2))
    g_j`; then `phi_ij <- (1 - decay) phi_ij + decay c`. The averages start at 0, where
    the first step is PCGrad's, and belong to task ids.

    Cost: O(T^3) on the Gram matrix, T sequential steps. State: `[task, task]` averages
    for every group.

    Raises:
      ValueError: for fewer than one task, a decay outside (0, 1] or an unknown
        reduction.

    Example:
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> rule = GradVac(num_tasks=2)
      >>> tasks = Tasks(gram, jnp.zeros(2), jnp.arange(2))
      >>> w, phi = rule.weigh(tasks, rule.init(), jax.random.key(0))
      >>> w.tolist(), round(float(phi[0, 1]), 4)
      ([1.5, 1.5], -0.005)
    """

    num_tasks: int
    """How many different tasks there are, >= 1; ids are below it."""

    decay: float = 0.01
    """Weight of the newest cosine in its average, beta in the paper."""

    reduction: Reduction = "sum"
    """"sum" of the changed gradients, or "mean" over the tasks that are there."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be in (0, 1], got {self.decay}.")
        check_reduction(self.reduction)

    def init(self) -> Any:
        """`[num_tasks, num_tasks]` average cosines."""
        return jnp.zeros((self.num_tasks, self.num_tasks))

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, and the new averages."""
        gram, count = tasks.gram, len(tasks.gram)
        orders = random_orders(key, count)
        own = jnp.arange(count)
        norms = jnp.sqrt(jnp.diagonal(gram))
        there = live_tasks(gram) > 0

        def meet(turn, carry):
            mix, phi = carry  # g_i' = sum_k mix_ik g_k
            other = orders[:, turn]
            products = mix @ gram
            lengths = jnp.sqrt(jnp.maximum(jnp.sum(mix * products, axis=1), 0.0))
            cosine = safe_divide(products[own, other], lengths * norms[other])
            goal = phi[own, other].astype(gram.dtype)
            meets = (other != own) & there & there[other]
            sine = lambda c: jnp.sqrt(jnp.maximum(1.0 - c**2, 0.0))
            pull = safe_divide(
                lengths * (goal * sine(cosine) - cosine * sine(goal)),
                norms[other] * sine(goal),
            )
            mix = mix.at[own, other].add(jnp.where(meets & (cosine < goal), pull, 0.0))
            moved = phi[own, other] + self.decay * (cosine - goal).astype(phi.dtype)
            kept = jnp.where(meets, moved, phi[own, other])
            return mix, phi.at[own, other].set(kept)

        here = (tasks.ids[:, None], tasks.ids[None, :])
        start = (jnp.eye(count, dtype=gram.dtype), state[here])
        mix, phi = jax.lax.fori_loop(0, count, meet, start)
        weights = reduced(mix.sum(0), gram, self.reduction)
        return weights, state.at[here].set(phi)
