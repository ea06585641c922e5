"""PCGrad through the Gram matrix against the direct loops and against TorchJD.

All run in turn on one core, round by round: what they cost is CPU time. 20 leaves of a
pytree hold D numbers a task.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import surgery
from jaxmeta.core.testing import assert_trees_close
from jaxmeta.surgery.projection import project, random_orders

ROUNDS, LEAVES = 5, 20


def task_gradients(num_tasks, size):
    keys = jax.random.split(jax.random.key(0), LEAVES)
    shape = (num_tasks, size // LEAVES // 50, 50)
    return [jax.random.normal(key, shape) for key in keys]


def direct(leaves, orders):
    """Algorithm 1 as it is printed: every projection passes over two gradients."""
    flat = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    squares = jnp.sum(flat**2, axis=1)

    def one_task(total, i):
        def meet(turn, g):
            j = orders[i, turn]
            s = jnp.vdot(g, flat[j])
            conflict = (s < 0) & (j != i)
            return g - jnp.where(conflict, s / squares[j], 0.0) * flat[j]

        return total + jax.lax.fori_loop(0, len(flat), meet, flat[i]), None

    merged, _ = jax.lax.scan(one_task, jnp.zeros_like(flat[0]), jnp.arange(len(flat)))
    return merged


def cpu_ms(runs, rounds=ROUNDS):
    """Median CPU ms of each; they take turns."""
    for run in runs.values():
        run()  # compiles and warms up
    spent = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.process_time()
            run()
            spent[name].append((time.process_time() - started) * 1e3)
    return {name: float(np.median(times)) for name, times in spent.items()}


def torchjd_pcgrad(leaves):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    aggregation = pytest.importorskip(
        "torchjd.aggregation", reason="TorchJD, the peer, is not installed"
    )
    torch.set_num_threads(1)
    rows = np.concatenate([np.asarray(g).reshape(len(g), -1) for g in leaves], axis=1)
    jacobian, aggregator = torch.tensor(rows), aggregation.PCGrad()
    return lambda: aggregator(jacobian)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
@pytest.mark.parametrize("num_tasks", [10, 50])
def test_cpu_time_of_an_aggregation(num_tasks, size, table):
    leaves = task_gradients(num_tasks, size)
    tx = surgery.pcgrad(0)
    update, loops = jax.jit(tx.update), jax.jit(direct)
    state = tx.init(leaves)
    orders = random_orders(jax.random.key(1), num_tasks)
    gram = surgery.gram_matrix(leaves)
    weights = project(gram, orders)
    merged = [jnp.tensordot(weights, g, axes=1).ravel() for g in leaves]
    assert_trees_close(
        loops(leaves, orders), jnp.concatenate(merged), rtol=1e-3, atol=1e-3
    )

    runs = {
        "jaxmeta": lambda: jax.block_until_ready(update(leaves, state)),
        "direct loops": lambda: loops(leaves, orders).block_until_ready(),
    }
    reason = ""
    try:
        runs["TorchJD"] = torchjd_pcgrad(leaves)
    except pytest.skip.Exception as skipped:
        reason = str(skipped)
    ms = cpu_ms(runs)
    target = 5 if num_tasks == 10 else 15
    rows = [("CPU ms", *ms), (f"T = {num_tasks}", *(f"{x:.2f}" for x in ms.values()))]
    ratios = [f"{x / ms['jaxmeta']:.1f} x" for x in ms.values()]
    rows.append((f"to jaxmeta (targets: {target} x, 1 x)", *ratios))
    table(f"PCGrad, T = {num_tasks}, D = {size:,}, 20 leaves {reason}", rows)
    assert all(np.isfinite(x) for x in ms.values())


def test_cpu_time_of_the_coefficients(table):
    rows = [("T", "CPU ms (target: under 10 at T = 200)")]
    for num_tasks in (10, 50, 200):
        rows_of = jax.random.normal(jax.random.key(0), (num_tasks, 1000))
        tasks = surgery.Tasks(
            rows_of @ rows_of.T, jnp.zeros(num_tasks), jnp.arange(num_tasks)
        )
        weigh = jax.jit(lambda tasks, key: surgery.PCGrad().weigh(tasks, (), key)[0])
        key = jax.random.key(1)
        run = lambda w=weigh, t=tasks, k=key: w(t, k).block_until_ready()
        rows.append((str(num_tasks), f"{cpu_ms({'run': run}, 11)['run']:.2f}"))
    table("PCGrad, coefficients alone", rows)


def test_memory_and_time_of_the_low_memory_form(table):
    num_tasks, width = 10, 700
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(key, (width, width)) / width**0.5 for key in keys[:2]]
    inputs = jax.random.normal(keys[2], (num_tasks, 8, width))
    targets = jax.random.normal(keys[3], (num_tasks, 8, width))

    def loss(params, x, y):
        return jnp.mean((jnp.tanh(x @ params[0]) @ params[1] - y) ** 2)

    losses = lambda params, x, y: jax.vmap(loss, in_axes=(None, 0, 0))(params, x, y)
    tx, low = surgery.pcgrad(0), surgery.low_memory(losses, surgery.PCGrad(), 0)

    def full(params, state):
        grads = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params, inputs, targets)
        return tx.update(grads, state)[0]

    thin = lambda params, state: low.update(params, state, inputs, targets)[0]
    state = tx.init(params)
    forms = {
        name: jax.jit(form).lower(params, state).compile()
        for name, form in (("full", full), ("low memory", thin))
    }
    results = {name: form(params, state) for name, form in forms.items()}
    assert_trees_close(results["low memory"], results["full"], rtol=1e-3, atol=1e-6)
    mib = {n: f.memory_analysis().temp_size_in_bytes / 2**20 for n, f in forms.items()}
    ms = cpu_ms(
        {
            n: (lambda f=f: jax.block_until_ready(f(params, state)))
            for n, f in forms.items()
        }
    )
    memory, duration = (kind["low memory"] / kind["full"] for kind in (mib, ms))
    table(
        "PCGrad, T = 10, 1 M parameters",
        [
            ("", "full", "low memory", "ratio"),
            (
                "temporary MiB",
                *(f"{x:.1f}" for x in mib.values()),
                f"{memory:.2f} (target: at most 0.30)",
            ),
            ("CPU ms", *(f"{x:.0f}" for x in ms.values()), f"{duration:.2f}"),
        ],
    )
