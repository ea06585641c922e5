"""One outer step of MSR-FC (k = 1, 32 tasks) against PyTorch's torch.func.

Ours draws its data; PyTorch's is drawn beforehand. Both run in turn, round by round, so
that a busy machine disturbs them alike.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.aggregate import sum_over_tasks
from jaxmeta.core.experiment import Experiment, Optimizer
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.core.testing import task_gradients
from jaxmeta.core.train import make_train_step
from jaxmeta.data.translation import TranslationSource
from jaxmeta.meta.maml import Maml
from jaxmeta.symmetry.layers import MSRDense

NUM_STEPS, NUM_TASKS, ROUNDS = 200, 32, 7
SOURCE = TranslationSource(rank=1)
EXPERIMENT = Experiment(
    learner=Maml(network=MSRDense(features=SOURCE.positions, inner_dim=3)),
    source=SOURCE,
    optimizer=Optimizer(aggregator=sum_over_tasks, learning_rate=1e-3),
    tasks_per_step=NUM_TASKS,
)


def draw(seed=0):
    return SOURCE.sample(jax.random.key(seed), jnp.arange(NUM_TASKS), split="train")


def whole_steps():
    """Data and all, as `fit` runs it."""
    advance, state = make_advance(EXPERIMENT), initial_state(EXPERIMENT)

    def run():
        nonlocal state
        state, metrics = advance(state, NUM_STEPS)
        jax.block_until_ready(state)
        assert jnp.isfinite(metrics["loss"].total)

    return run


def steps_without_data():
    """The same step on tasks drawn before."""
    aggregator, tx = EXPERIMENT.optimizer.make()
    step = make_train_step(EXPERIMENT.learner, tx, aggregator)
    batches = jax.tree.map(lambda *x: jnp.stack(x), *map(draw, range(NUM_STEPS)))
    one = lambda state, tasks: step(state, tasks, jax.random.key(0))
    scan = jax.jit(lambda state, batches: jax.lax.scan(one, state, batches))
    state = initial_state(EXPERIMENT)
    return lambda: jax.block_until_ready(scan(state, batches))


def data_alone():
    """Drawing as many tasks; the sums keep XLA from leaving any out."""

    @jax.jit
    def scan(data, key):
        def one(total, i):
            at = jax.random.fold_in(key, i)
            tasks = SOURCE.sample_from(data, at, jnp.arange(NUM_TASKS), split="train")
            return total + sum(jnp.sum(x) for x in jax.tree.leaves(tasks)), None

        return jax.lax.scan(one, 0.0, jnp.arange(NUM_STEPS))[0]

    return lambda: scan(SOURCE.load(), jax.random.key(0)).block_until_ready()


class TorchMSR:
    """The step in torch.func: vmap over tasks, grad within, Adam."""

    def __init__(self, torch, params, tasks):
        torch.set_num_threads(1)
        tensor = lambda x: torch.tensor(np.asarray(x))
        self.params = [
            tensor(leaf).requires_grad_()
            for leaf in (
                params["slow"]["symmetry"]["U"],
                params["fast"]["v"],
                params["rates"]["v"],
            )
        ]
        self.batch = [tensor(x) for x in (*tasks.support, *tasks.query)]
        # On the CPU neither fused=True nor foreach=True is faster for three tensors.
        self.adam = torch.optim.Adam(self.params, lr=1e-3)

        def error(u, v, x, y):
            outputs = x @ (u @ v).view(y.shape[-1], x.shape[-1]).T
            return torch.nn.functional.mse_loss(outputs, y)

        def task_loss(u, v, rate, x, y, query_x, query_y):
            grad = torch.func.grad(error, argnums=1)(u, v, x, y)
            return error(u, v - rate * grad, query_x, query_y)

        self.losses = torch.func.vmap(task_loss, in_dims=(None,) * 3 + (0,) * 4)

    def loss_and_gradient(self):
        self.adam.zero_grad()
        loss = self.losses(*self.params, *self.batch).sum()
        loss.backward()
        return loss.item(), [p.grad.numpy() for p in self.params]

    def run(self):
        for _ in range(NUM_STEPS):
            self.adam.zero_grad()
            self.losses(*self.params, *self.batch).sum().backward()
            self.adam.step()


def milliseconds(runs):
    """CPU ms per step, `{name: [round]}`; the runs take turns."""
    for run in runs.values():
        run()  # compiles and warms up
    spent = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.process_time()
            run()
            spent[name].append((time.process_time() - started) / NUM_STEPS * 1e3)
    return spent


@pytest.fixture(scope="module")
def peer():
    torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    start = EXPERIMENT.learner.init(jax.random.key(0), SOURCE.example)
    return TorchMSR(torch, start[0], draw()), start


def test_torch_computes_the_same(peer):
    torch_msr, (params, model_state) = peer
    losses, grads = task_gradients(
        EXPERIMENT.learner, params, model_state, draw(), EXPERIMENT.parallel
    )
    loss, (u, v, rate) = torch_msr.loss_and_gradient()
    np.testing.assert_allclose(losses.sum(), loss, rtol=1e-4)
    for got, want in (
        (grads["slow"]["symmetry"]["U"], u),
        (grads["fast"]["v"], v),
        (grads["rates"]["v"], rate),
    ):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got.sum(axis=0), want, rtol=1e-4, atol=1e-4 * scale)


def test_cpu_time_of_an_outer_step(table, request):
    runs = {
        "jaxmeta, data included": whole_steps(),
        "jaxmeta, step alone": steps_without_data(),
        "jaxmeta, data alone": data_alone(),
    }
    reason = ""
    try:
        runs["torch.func, no data"] = request.getfixturevalue("peer")[0].run
    except pytest.skip.Exception as skipped:
        reason = str(skipped)
    spent = milliseconds(runs)
    medians = {name: float(np.median(times)) for name, times in spent.items()}
    rows = [("CPU ms per outer step", "median", "least")]
    rows += [(k, f"{medians[k]:.2f}", f"{min(v):.2f}") for k, v in spent.items()]
    if reason:
        rows.append(("torch.func, no data", "-", reason))
    else:
        mine, theirs = (spent[k] for k in (next(iter(runs)), "torch.func, no data"))
        ratios = np.divide(mine, theirs)  # of rounds side by side
        middle, least = f"{np.median(ratios):.2f}", f"{ratios.min():.2f}"
        rows.append(("ratio to torch.func (target: at most 0.80)", middle, least))
    table(f"MSR-FC, k = 1, {NUM_TASKS} tasks, one core", rows)
    assert all(np.isfinite(m) for m in medians.values())
