"""Axes beside that of the tasks: the same numbers, in shares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxmeta import Maml, Parallel, init_state, make_train_step, mean_over_tasks
from jaxmeta.core.checkpoint import Checkpoints
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.experiment import Experiment, Optimizer
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.core.mesh import DATA, PARAMS, TASKS, make_mesh
from jaxmeta.core.testing import (
    SmokeHostSource,
    SmokeSource,
    assert_trees_close,
    compilations,
    smoke_learner,
)
from jaxmeta.data.translation import TranslationSource
from jaxmeta.networks.mlp import MLP
from jaxmeta.surgery import GradNorm, GradVac, GroupDRO, aggregate_tasks, pcgrad

KEY = jax.random.key(0)
LEARNER = Maml(network=MLP(features=(8, 7)), inner_steps=2)
SOURCE = TranslationSource(input_size=9, num_support=4, num_query=6)
ONE = Parallel(backend="vmap")
SHARES = {
    "params": Parallel(params_shards=2),
    "all in one share": Parallel(params_shards=4),
    "data": Parallel(data_shards=2),
    "both": Parallel(params_shards=2, data_shards=2),
}
AGGREGATORS = {
    "mean": mean_over_tasks,
    "pcgrad": lambda: pcgrad(KEY),
    "dro": lambda: aggregate_tasks(GroupDRO(num_tasks=100)),
}

# Three steps of Adam magnify float32 sums that are taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def _chain():
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))


def _state(aggregator):
    return init_state(LEARNER, _chain(), aggregator, key=KEY, example=SOURCE.example)


def _program(parallel, aggregator):
    """The compiled step and its state, where it is kept."""
    state = _state(aggregator)
    state = jax.device_put(state, parallel.placement(state))
    tasks = parallel.split_rows(SOURCE.sample(KEY, jnp.arange(4), split="train"))
    step = make_train_step(LEARNER, _chain(), aggregator, parallel=parallel)
    return jax.jit(step).lower(state, tasks, KEY).compile(), state


def _after_three_steps(parallel, name):
    step, state = _program(parallel, AGGREGATORS[name]())
    losses = []
    for i in range(3):
        key = jax.random.fold_in(KEY, i)
        tasks = SOURCE.sample(key, jnp.arange(4), split="train")
        state, metrics = step(state, parallel.split_rows(tasks), key)
        losses.append(metrics["loss"].compute())
    return state, losses


def _is_kept(state, parallel):
    wanted = jax.tree.leaves(parallel.placement(state))
    return all(
        leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        for leaf, sharding in zip(jax.tree.leaves(state), wanted, strict=True)
    )


@pytest.fixture(scope="module")
def whole():
    """What one device finds, by aggregator."""
    return {name: _after_three_steps(ONE, name) for name in AGGREGATORS}


@pytest.mark.parametrize(
    ("shares", "aggregator"),
    [
        ("params", "mean"),
        ("params", "pcgrad"),
        ("all in one share", "pcgrad"),
        ("data", "mean"),
        ("both", "pcgrad"),
        ("both", "dro"),
    ],
)
def test_the_numbers_are_those_of_one_device(shares, aggregator, whole):
    parallel = SHARES[shares]
    state, losses = _after_three_steps(parallel, aggregator)
    expected, expected_losses = whole[aggregator]
    assert_trees_close(jax.device_get(state.params), expected.params, **CLOSE)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    # It is kept as it was put, so that the next step is the same program.
    assert _is_kept(state, parallel)


def test_parameters_and_optimiser_are_kept_in_shares():
    parallel = Parallel(params_shards=4)
    state = _state(mean_over_tasks())
    state = jax.device_put(state, parallel.placement(state))
    kernel = state.params["fast"]["Dense_0"]["kernel"]
    assert kernel.shape == (9, 8)
    assert kernel.sharding.spec == P(None, (PARAMS,))
    held = lambda tree: sum(
        leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(tree)
    )
    moments = [m for m in jax.tree.leaves(state.opt_state) if m.shape == kernel.shape]
    assert len(moments) == 2
    assert all(m.sharding == kernel.sharding for m in moments)
    # Both kernels and one bias divide by 4; the other bias and the rates do not.
    assert held(state.params["fast"]) == (9 * 8 + 8 + 8 * 7) // 4 + 7


def test_an_axis_inside_tasks_shares_the_arithmetic():
    flops = {
        name: _program(parallel, mean_over_tasks())[0].cost_analysis()["flops"]
        for name, parallel in {
            "two tasks each": Parallel(num_devices=2),
            "two tasks for two": Parallel(data_shards=2),
        }.items()
    }
    assert flops["two tasks for two"] < 0.7 * flops["two tasks each"]


def test_a_checkpoint_in_shares_is_read_whole_and_the_other_way_round(tmp_path):
    state, _ = _after_three_steps(SHARES["params"], "mean")
    writer = Checkpoints(tmp_path)
    writer.save(3, state)
    writer.close()
    for parallel in (ONE, *SHARES.values()):
        like = _state(mean_over_tasks())
        like = jax.device_put(like, parallel.placement(like))
        reader = Checkpoints(tmp_path)
        found, _ = reader.restore(like)
        reader.close()
        assert_trees_close(
            jax.device_get(found.params),
            jax.device_get(state.params),
            rtol=0.0,
            atol=0.0,
        )
        assert _is_kept(found, parallel)


def test_evaluation_gives_the_same_values():
    state = _state(mean_over_tasks())
    values = []
    for parallel in (ONE, SHARES["both"]):
        params = jax.device_put(state.params, parallel.placement(state.params))
        evaluate = make_evaluator(
            LEARNER, SOURCE, split="test", parallel=parallel, tasks_per_batch=4
        )
        values.append(evaluate(params, state.model_state, KEY, 8)["loss"])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)


@pytest.mark.parametrize("source", [SmokeSource(), SmokeHostSource()], ids=repr)
@pytest.mark.parametrize("name", ["gradnorm", "gradvac"])
def test_what_comes_back_lies_as_it_came(name, source):
    """Else the second call is another program, and a resumed run has only that one."""
    make = {"gradnorm": GradNorm, "gradvac": GradVac}[name]
    aggregator = lambda: aggregate_tasks(make(num_tasks=100))
    experiment = Experiment(
        learner=smoke_learner(),
        source=source,
        optimizer=Optimizer(aggregator=aggregator, learning_rate=0.1),
        tasks_per_step=4,
    )
    advance, state = make_advance(experiment), initial_state(experiment)
    state, _ = advance(state, 2)
    assert _is_kept(state, experiment.parallel)
    with compilations() as compiled:
        advance(state, 2)
    assert compiled == []


@pytest.mark.parametrize("shares", ["params", "data"])
def test_a_source_on_the_host_is_spread_as_well(shares):
    losses = []
    for parallel in (ONE, SHARES[shares]):
        experiment = Experiment(
            learner=smoke_learner(),
            source=SmokeHostSource(),
            optimizer=Optimizer(learning_rate=0.1),
            parallel=parallel,
            tasks_per_step=8,
        )
        state, metrics = make_advance(experiment)(initial_state(experiment), 3)
        losses.append((metrics["loss"].compute(), state.params["w"]))
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)
    np.testing.assert_allclose(losses[1][1], losses[0][1], rtol=1e-5)


def test_axes_that_are_not_asked_for_are_not_there():
    assert make_mesh().shape == {TASKS: 4}
    assert make_mesh(params_shards=2).shape == {TASKS: 2, PARAMS: 2}
    assert make_mesh(params_shards=2, data_shards=2).shape == {
        TASKS: 1,
        PARAMS: 2,
        DATA: 2,
    }


# Errors.


def test_examples_must_divide_over_the_devices_that_share_them():
    learner, tx = smoke_learner(), optax.sgd(0.1)
    source = SmokeSource(num_support=3, num_query=5)
    tasks = source.sample(KEY, jnp.arange(4), split="train")
    state = init_state(learner, tx, mean_over_tasks(), key=KEY, example=source.example)
    step = make_train_step(
        learner, tx, mean_over_tasks(), parallel=Parallel(data_shards=2)
    )
    with pytest.raises(ValueError, match=r"data_shards \(2\) must divide .* are 3, 5"):
        jax.eval_shape(step, state, tasks, KEY)


def test_shares_must_divide_the_devices():
    with pytest.raises(ValueError, match=r"must divide the 4 devices, got 3 x 1"):
        _ = Parallel(params_shards=3).num_shards
    with pytest.raises(ValueError, match="must divide the 4 devices, got 4 x 2"):
        make_mesh(params_shards=4, data_shards=2)


@pytest.mark.parametrize("name", ["params_shards", "data_shards"])
def test_what_does_not_go_with_shares_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1 or None, got 0"):
        Parallel(**{name: 0})
    with pytest.raises(ValueError, match="need the backend 'shard_map', got 'pmap'"):
        Parallel(backend="pmap", **{name: 2})
    with pytest.raises(ValueError, match="deterministic needs params_shards"):
        Parallel(deterministic=True, **{name: 2})
