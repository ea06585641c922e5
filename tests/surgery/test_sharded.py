"""What travels between eight devices: read from the compiled program."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, json, re
import jax, jax.numpy as jnp, optax
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxmeta import Learner, Mean, Parallel, Task, init_state, make_train_step, surgery

KEY, TASKS = jax.random.key(0), 8
ALL, ONE = Parallel(), Parallel(backend="vmap")
KINDS = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"


def collectives(compiled):
    found = re.findall(rf"= (.*?) ({KINDS})(?:-start)?\\(", compiled.as_text())
    return [[kind, re.findall(r"\\[([\\d,]*)\\]", shapes)] for shapes, kind in found]


def difference(a, b):
    far = lambda x, y: float(jnp.abs(x - y).max() / jnp.abs(y).max())
    return max(jax.tree.leaves(jax.tree.map(far, *jax.device_get((a, b)))))


def params_sharded():
    shapes = {"w": (64, 128), "b": (128,), "k": (3, 3, 4, 16)}
    grads = {n: jax.random.normal(KEY, (TASKS, *s)) for n, s in shapes.items()}
    spec = {"w": P(None, "tasks"), "b": P(None, "tasks")}
    spec["k"] = P(None, None, None, None, "tasks")
    tx = surgery.pcgrad(KEY)
    state = tx.init(None)
    place = lambda x, s: jax.device_put(x, NamedSharding(ALL.mesh, s))
    spread = {name: place(grads[name], spec[name]) for name in grads}
    compiled = jax.jit(tx.update).lower(spread, ALL.replicate(state)).compile()
    updates, _ = compiled(spread, ALL.replicate(state))
    expected, _ = jax.jit(tx.update)(grads, state)
    where = [list(updates[name].sharding.spec) for name in ("w", "b")]
    return {"collectives": collectives(compiled), "where": where,
            "difference": difference(updates, expected)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(Learner):
    def init(self, key, example):
        return {"w": jax.random.normal(key, (128, 128)), "b": jnp.zeros(128)}, ()
    def adapt(self, params, model_state, support, key):
        return params
    def loss(self, params, model_state, task, key):
        out = jnp.tanh(task.query @ params["w"] + params["b"][None])
        loss = jnp.mean((out - task.query) ** 2)
        return loss, ({"loss": Mean.of(loss)}, model_state)
    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


def tasks_sharded(aggregator, tx):
    tasks = Task((), jax.random.normal(KEY, (TASKS, 4, 128)), jnp.arange(TASKS))
    example = jax.tree.map(lambda x: x[0], tasks)
    state = init_state(Autoencoder(), tx, aggregator, key=KEY, example=example)
    compiled, results = None, []
    for parallel in (ONE, ALL):
        step = make_train_step(Autoencoder(), tx, aggregator, parallel=parallel)
        given = parallel.replicate(state), parallel.split_rows(tasks), KEY
        compiled = jax.jit(step).lower(*given).compile()
        results.append(compiled(*given)[0].params)
    return {"collectives": collectives(compiled), "difference": difference(*results)}


adam = optax.adam(1e-3)
print(json.dumps({
    "params": params_sharded(),
    "aggregator": tasks_sharded(surgery.pcgrad(KEY), adam),
    "first link": tasks_sharded(None, optax.chain(surgery.pcgrad(KEY), adam)),
}))
"""


@pytest.fixture(scope="module")
def measured():
    environment = {**os.environ, "NPROC": "16", "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sharded_parameters_exchange_nothing_but_the_gram(measured):
    ((kind, shapes),) = measured["params"]["collectives"]
    assert kind == "all-reduce"
    assert set(shapes) == {"8,8"}
    assert measured["params"]["where"] == [["tasks"], ["tasks"]]
    assert measured["params"]["difference"] < 1e-6


@pytest.mark.parametrize("where", ["aggregator", "first link"])
def test_sharded_tasks_never_gather_all_gradients(measured, where):
    found = measured[where]["collectives"]
    gathered = {
        shape for kind, shapes in found if kind == "all-gather" for shape in shapes
    }
    assert gathered == {"128,128", "128"}
    reduced = {
        shape for kind, shapes in found if kind == "all-reduce" for shape in shapes
    }
    assert reduced == {"8,8", ""}
    assert {kind for kind, _ in found} == {"all-to-all", "all-reduce", "all-gather"}
    assert measured[where]["difference"] < 1e-6
    if where == "aggregator":
        assert sum(kind == "all-gather" for kind, _ in found) == 2
