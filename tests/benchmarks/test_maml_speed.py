"""One outer step of MAML on images, 5-way 1-shot, against PyTorch's torch.func.

Four blocks of 32 channels, 28 x 28, 4 tasks of 25 query images, second order. Every way
to run the convolutions runs in turn, round by round, so that a busy machine disturbs
all alike. On one core times are of the processor, on JAXMETA_BENCH_CORES of the clock.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta import Maml, Parallel, init_state, make_train_step
from jaxmeta.core.experiment import Optimizer
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.testing import task_gradients
from jaxmeta.data.digits import Digits
from jaxmeta.data.omniglot import Omniglot
from jaxmeta.networks.conv import Conv4, LoopConv4
from jaxmeta.symmetry.augment import Augment

NUM_TASKS, ROUNDS, RATE = 4, 5, 0.4
SOURCE = Omniglot(queries=5, origin="digits", augment=Augment())
VMAP = Parallel(backend="vmap")


class FlaxConv4(Conv4):
    """With Flax's convolution, which `vmap` over kernels makes a grouped one."""

    def convolution(self):
        return nn.Conv(self.features, (3, 3), use_bias=False)


FORMS = {
    "patches, vmap over tasks": (Conv4(), VMAP),
    "patches, one task at a time (lax.map)": (
        Conv4(),
        Parallel(backend="vmap", task_batch_size=1),
    ),
    "convolve, a Python loop over tasks": (LoopConv4(), Parallel(backend="loop")),
    "grouped convolutions": (FlaxConv4(), VMAP),
}


def maml(network, steps):
    return Maml(
        network=network, objective=cross_entropy, inner_steps=steps, inner_rate=RATE
    )


def draw(source=SOURCE):
    return source.sample(jax.random.key(0), jnp.arange(NUM_TASKS), split="train")


def step_of(network, parallel, steps, source=SOURCE):
    """A training step on tasks drawn before."""
    learner, (aggregator, tx) = maml(network, steps), Optimizer().make()
    state = init_state(
        learner, tx, aggregator, key=jax.random.key(1), example=source.example
    )
    step = jax.jit(make_train_step(learner, tx, aggregator, parallel=parallel))
    tasks = draw(source)
    return lambda: jax.block_until_ready(step(state, tasks, jax.random.key(2)))


class TorchMaml:
    """The step in torch.func: vmap over tasks, grad within, Adam."""

    def __init__(self, torch, params, tasks, steps):
        self.torch = torch
        tensor = lambda x: torch.tensor(np.asarray(x))
        self.params, self.rates = {}, {}
        for layer, leaves in params["fast"].items():
            for name, leaf in leaves.items():
                value = tensor(leaf)
                if value.ndim == 4:
                    value = value.permute(3, 2, 0, 1)
                if layer == "Dense_0" and name == "kernel":
                    value = value.T
                key = f"{layer}.{name}"
                self.params[key] = value.contiguous().requires_grad_()
                self.rates[key] = torch.tensor(RATE, requires_grad=True)
        images = lambda x: tensor(x).permute(0, 1, 4, 2, 3).contiguous()
        self.batch = [
            images(tasks.support.inputs),
            tensor(tasks.support.targets).long(),
            images(tasks.query.inputs),
            tensor(tasks.query.targets).long(),
        ]
        self.adam = torch.optim.Adam([*self.params.values(), *self.rates.values()])
        self.steps = steps
        self.of_tasks = torch.func.vmap(self.task_loss, (None, None, 0, 0, 0, 0))

    def error(self, params, x, y):
        functional = self.torch.nn.functional
        for i in range(4):
            x = functional.conv2d(x, params[f"Conv3x3_{i}.kernel"], padding=1)
            norm = (params[f"BatchNorm_{i}.{name}"] for name in ("scale", "bias"))
            x = functional.batch_norm(x, None, None, *norm, training=True)
            x = functional.max_pool2d(functional.relu(x), 2)
        logits = x.flatten(1) @ params["Dense_0.kernel"].T + params["Dense_0.bias"]
        return functional.cross_entropy(logits, y)

    def task_loss(self, params, rates, x, y, query_x, query_y):
        for _ in range(self.steps):
            grads = self.torch.func.grad(self.error)(params, x, y)
            params = {k: v - rates[k] * grads[k] for k, v in params.items()}
        return self.error(params, query_x, query_y)

    def loss_and_gradient(self):
        self.adam.zero_grad()
        loss = self.of_tasks(self.params, self.rates, *self.batch).mean()
        loss.backward()
        return loss.item()

    def run(self):
        self.loss_and_gradient()
        self.adam.step()


def peer_of(steps):
    torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    params, state = maml(Conv4(), steps).init(jax.random.key(1), SOURCE.example)
    return TorchMaml(torch, params, draw(), steps), params, state


def test_torch_computes_the_same():
    peer, params, state = peer_of(2)
    losses, grads = task_gradients(maml(Conv4(), 2), params, state, draw(), VMAP)
    np.testing.assert_allclose(losses.mean(), peer.loss_and_gradient(), rtol=1e-3)
    ours = np.asarray(grads["fast"]["Conv3x3_1"]["kernel"].mean(0))
    theirs = peer.params["Conv3x3_1.kernel"].grad.permute(2, 3, 1, 0).numpy()
    # Float32 through two inner steps and eight normalisations of few points.
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


@pytest.mark.parametrize("steps", [1, 5])
def test_outer_step(steps, table, seconds):
    runs = {name: step_of(*form, steps) for name, form in FORMS.items()}
    runs["torch.func"] = peer_of(steps)[0].run
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds(run))
    theirs = float(np.median(times["torch.func"]))
    rows = [("form", "ms", "torch.func / this")]
    for name, values in times.items():
        median = float(np.median(values))
        assert np.isfinite(median)
        rows.append((name, f"{1e3 * median:.0f}", f"{theirs / median:.2f}"))
    table(f"MAML on images, {steps} inner steps", rows)


SIZES = {
    "5 + 25 images of 28 x 28": SOURCE,
    "5 + 75 images of 84 x 84": Digits(
        ways=5, shots=1, queries=15, image_size=84, augment=Augment()
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_drawing_and_augmenting(size, table, seconds):
    source = SIZES[size]
    draw = jax.jit(lambda key: source.sample(key, jnp.arange(NUM_TASKS), split="train"))
    step = step_of(Conv4(), VMAP, 1, source)
    runs = {
        "drawing and augmenting": lambda: jax.block_until_ready(
            draw(jax.random.key(0))
        ),
        "step": step,
    }
    for run in runs.values():
        run()
    drawn, whole = (
        float(np.median([seconds(run) for _ in range(9)])) for run in runs.values()
    )
    assert drawn < 0.1 * whole
    rows = [("drawing, ms", "step, ms", "share")]
    rows.append((f"{1e3 * drawn:.1f}", f"{1e3 * whole:.0f}", f"{drawn / whole:.1%}"))
    table(f"MAML on images, drawing 4 tasks of {size} with augmentation", rows)
