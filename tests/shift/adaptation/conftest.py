"""A network of two linear layers with batch normalisation between, and a stream."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.networks.convnet import Outputs
from jaxmeta.networks.norm import TRAINING, BatchNorm
from jaxmeta.shift.arm_bn import ArmBn

NUM_CLASSES, NUM_POINTS, NUM_BATCHES = 3, 8, 4


class Tiny(nn.Module):
    """Linear, batch normalisation, tanh, linear."""

    num_classes: int = NUM_CLASSES
    normalise: bool = True

    @nn.compact
    def __call__(self, x, statistics=TRAINING, mask=None):
        x = nn.Dense(5)(x)
        if self.normalise:
            x = BatchNorm()(x, statistics, mask)
        features = nn.tanh(x)
        return Outputs(nn.Dense(self.num_classes)(features), features)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled(adapter, learner, state, x, mask):
    return adapter.adapt(learner, state, x, mask)


class World(NamedTuple):
    """A learner with parameters and statistics, and batches `[batch, n, 6]`."""

    learner: ArmBn
    params: dict
    model_state: dict
    batches: jax.Array
    masks: jax.Array

    @property
    def model(self):
        return self.learner, self.params, self.model_state

    def start(self, adapter, seed=0):
        return adapter.init(*self.model, jax.random.key(seed))

    def walk(self, adapter, num_batches=NUM_BATCHES):
        """The last state and `[batch, n, classes]` logits, batch by batch."""
        state, logits = self.start(adapter), []
        for x, mask in zip(self.batches[:num_batches], self.masks, strict=False):
            state, answer = self.adapt(adapter, state, x, mask)
            logits.append(answer)
        return state, jnp.stack(logits)

    def adapt(self, adapter, state, x, mask):
        """One batch, compiled once for all tests."""
        return compiled(adapter, self.learner, state, x, mask)


@pytest.fixture(scope="session")
def world() -> World:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {
        "Dense_0": {"kernel": draw(6, 5), "bias": draw(5)},
        "BatchNorm_0": {"scale": 1.0 + 0.3 * draw(5), "bias": 0.5 * draw(5)},
        "Dense_1": {"kernel": 2.0 * draw(5, NUM_CLASSES), "bias": draw(NUM_CLASSES)},
    }
    stats = {"BatchNorm_0": {"mean": draw(5), "var": 1.0 + jnp.abs(draw(5))}}
    batches = draw(NUM_BATCHES, NUM_POINTS, 6) + 0.5
    masks = jnp.ones((NUM_BATCHES, NUM_POINTS), bool)
    return World(ArmBn(network=Tiny()), params, stats, batches, masks)


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    """The network's class, for learners of another kind."""
    return Tiny


@pytest.fixture(scope="session")
def by_hand(world):
    """The network in NumPy, with the mean and variance that it is given."""

    def logits(x, mean, var, norm=None):
        p = jax.tree.map(np.asarray, world.params)
        norm = norm or p["BatchNorm_0"]
        h = hidden(x)
        h = (h - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        out = p["Dense_1"]
        return np.tanh(h) @ out["kernel"] + out["bias"]

    def hidden(x):
        first = jax.tree.map(np.asarray, world.params["Dense_0"])
        return np.asarray(x) @ first["kernel"] + first["bias"]

    logits.hidden = hidden
    return logits


@pytest.fixture(scope="session")
def in_torch(world):
    """The network in PyTorch with batch statistics: `(logits(x), scale, bias)`."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    functional = torch.nn.functional

    def make():
        p = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), world.params)
        scale = torch.nn.Parameter(p["BatchNorm_0"]["scale"].clone())
        bias = torch.nn.Parameter(p["BatchNorm_0"]["bias"].clone())

        def logits(x):
            h = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
            h = functional.batch_norm(h, None, None, scale, bias, training=True)
            return torch.tanh(h) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]

        return logits, scale, bias

    return make
