"""The same loss and meta-gradient in PyTorch, written down by somebody else's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.parallel import Parallel
from jaxmeta.core.testing import task_gradients
from jaxmeta.data.translation import TranslationSource
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.meta_gradient import FirstOrder, Unrolled
from jaxmeta.symmetry.layers import MSRDense

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")

SOURCE = TranslationSource(input_size=12, num_query=5)
NUM_TASKS = 3


def torch_loss(tensors, task, learner):
    """MSR of one task by autograd's graph, step by step."""
    u, v, rates = tensors
    error = lambda v, examples: torch.nn.functional.mse_loss(
        examples[0] @ (u @ v).view(SOURCE.positions, -1).T, examples[1]
    )
    support, query = task
    for rate in rates:
        (grad,) = torch.autograd.grad(
            error(v, support), v, create_graph=learner.meta_gradient == Unrolled()
        )
        v = v - rate * grad
    return error(v, query)


@pytest.mark.parametrize("choice", [Unrolled(), FirstOrder()], ids=repr)
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_msr_agrees_with_torch(choice, inner_steps):
    network = MSRDense(features=SOURCE.positions, inner_dim=3)
    learner = Maml(
        network=network,
        inner_steps=inner_steps,
        meta_gradient=choice,
        per_step=True,
    )
    tasks = SOURCE.sample(jax.random.key(0), jnp.arange(NUM_TASKS), split="train")
    params, model_state = learner.init(jax.random.key(1), SOURCE.example)
    # As drawn, U and v are so small that some gradients would be lost in rounding.
    params = {**params, "fast": {"v": jnp.array([1.0, -0.5, 0.3])}}
    params["slow"] = jax.tree.map(lambda u: 30 * u, params["slow"])
    losses, grads = task_gradients(
        learner, params, model_state, tasks, Parallel(backend="vmap")
    )

    to_torch = lambda leaf: torch.tensor(np.asarray(leaf))
    tensors = [
        to_torch(leaf).requires_grad_()
        for leaf in (
            params["slow"]["symmetry"]["U"],
            params["fast"]["v"],
            params["rates"]["v"],
        )
    ]
    for i in range(NUM_TASKS):
        task = [[to_torch(x[i]) for x in half] for half in (tasks.support, tasks.query)]
        loss = torch_loss(tensors, task, learner)
        expected = torch.autograd.grad(loss, tensors)
        mine = (
            grads["slow"]["symmetry"]["U"][i],
            grads["fast"]["v"][i],
            grads["rates"]["v"][i],
        )
        # float32 sums of about a hundred products, in another order.
        np.testing.assert_allclose(losses[i], loss.detach(), rtol=1e-5)
        for got, want in zip(mine, expected, strict=True):
            np.testing.assert_allclose(
                got, want, rtol=1e-4, atol=1e-5 * want.abs().max()
            )
