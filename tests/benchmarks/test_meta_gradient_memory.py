"""Temporary memory of a ten-step meta-gradient, with and without remat.

XLA's own figure for the compiled program. Remat can only save what the inner steps
would otherwise keep: activations on the support set. A single linear layer keeps none,
as its patches are the same at every step; and a query set larger than the support has
activations of its own, which no remat of the inner loop can touch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Examples, Task
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.meta_gradient import Unrolled
from jaxmeta.networks.conv import Conv4
from jaxmeta.symmetry.layers import MSRConv

MIB = 2**20


def images(num, size, target_shape):
    rng = np.random.default_rng(num)
    inputs = jnp.asarray(rng.normal(size=(num, size, size, 1)), jnp.float32)
    if target_shape is None:
        return Examples(inputs, jnp.arange(num, dtype=jnp.int32) % 5)
    targets = rng.normal(size=(num, *target_shape))
    return Examples(inputs, jnp.asarray(targets, jnp.float32))


def msr_stack(num_layers):
    layers = [MSRConv(features=16, kernel_size=(3, 3)), nn.relu] * (num_layers - 1)
    # Copies, because one module object twice would share its parameters.
    layers = [x.copy() if isinstance(x, nn.Module) else x for x in layers]
    return nn.Sequential([*layers, MSRConv(features=24, kernel_size=(3, 3))])


def maml(network, **settings):
    return Maml(network=network, inner_steps=10, inner_rate=0.01, **settings)


# network, support images, query images, image size, shape of a target (None: 5 classes)
CASES = {
    "Conv4, 5-way": (maml(Conv4(), objective=cross_entropy), 5, 25, 28, None),
    "Conv4, 5-way 5-shot": (maml(Conv4(), objective=cross_entropy), 25, 25, 28, None),
    "MSRConv, 3 layers": (maml(msr_stack(3)), 5, 5, 32, (26, 26, 24)),
    "MSRConv, 3 layers, 19 queries": (maml(msr_stack(3)), 1, 19, 32, (26, 26, 24)),
    "MSRConv, 1 layer, linear": (maml(msr_stack(1)), 5, 5, 32, (30, 30, 24)),
}


@pytest.mark.parametrize("name", CASES)
def test_memory_of_a_ten_step_meta_gradient(name, table):
    learner, num_support, num_query, size, shape = CASES[name]
    task = Task(
        images(num_support, size, shape), images(num_query, size, shape), jnp.array(0)
    )
    params, model_state = learner.init(jax.random.key(0), task)

    def compiled(learner):
        loss = lambda params, task: learner.loss(
            params, model_state, task, jax.random.key(0)
        )[0]
        return jax.jit(jax.value_and_grad(loss)).lower(params, task).compile()

    kept = compiled(dataclasses.replace(learner, meta_gradient=Unrolled(remat=False)))
    recomputed = compiled(learner)
    # float32 through ten steps of relus: entries far below the largest may part.
    for got, want in zip(
        *(jax.tree.leaves(program(params, task)) for program in (recomputed, kept)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max(), rtol=0.0)
    with_remat, without = (
        program.memory_analysis().temp_size_in_bytes for program in (recomputed, kept)
    )
    table(
        f"{name}: {num_support} support, {num_query} query images",
        [
            ("with remat, MiB", "without", "ratio (target: at most 0.40)"),
            (
                f"{with_remat / MIB:.1f}",
                f"{without / MIB:.1f}",
                f"{with_remat / without:.2f}",
            ),
        ],
    )
    assert with_remat <= 1.05 * without
