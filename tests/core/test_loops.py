"""Where loops are slow they are not used, and the numbers stay the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import evaluate as evaluation
from jaxmeta.core import fit as fitting
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.core.loops import loops_well, scan
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.testing import assert_trees_close, smoke_learner, smoke_source

EXPERIMENT = Experiment(
    learner=smoke_learner(),
    source=smoke_source(),
    tasks_per_step=4,
    steps=6,
    parallel=Parallel(backend="vmap"),
)


def test_a_convolution_on_the_cpu_does_not_loop_well():
    image, kernel = jnp.ones((1, 1, 4, 4)), jnp.ones((1, 1, 3, 3))
    convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME").sum()
    assert not loops_well(convolve, image, kernel)
    assert not loops_well(jax.jit(jax.grad(convolve)), image, kernel)
    assert loops_well(lambda x, k: (x @ x).sum() + k.sum(), image, kernel)


@pytest.fixture
def slow_loops(monkeypatch):
    """Makes every loop a slow one, as it is with convolutions."""
    for module in (fitting, evaluation):
        monkeypatch.setattr(module, "loops_well", lambda *args: False)


def test_steps_one_by_one_are_the_steps_of_the_loop(slow_loops, monkeypatch):
    advance = make_advance(EXPERIMENT)
    apart = advance(initial_state(EXPERIMENT), 4)
    monkeypatch.undo()
    together = make_advance(EXPERIMENT)(initial_state(EXPERIMENT), 4)
    assert_trees_close(apart[0], together[0], rtol=1e-5)
    assert_trees_close(dict(apart[1]), dict(together[1]), rtol=1e-5)
    assert int(apart[0].step) == 4


def test_batches_one_by_one_are_those_of_the_loop(slow_loops, monkeypatch):
    state = initial_state(EXPERIMENT)
    key = jax.random.key(1)

    def values():
        one = make_evaluator(
            EXPERIMENT.learner,
            EXPERIMENT.source,
            parallel=EXPERIMENT.parallel,
            tasks_per_batch=4,
        )
        return one(state.params, state.model_state, key, 10)

    apart = values()
    monkeypatch.undo()
    np.testing.assert_allclose(apart["loss"], values()["loss"], rtol=1e-5)
    assert apart["loss"].shape == (10,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halves(type(smoke_source())):
    """Two slots are the two parts of one group."""

    parts_of_groups = True

    def sample_task(self, data, key, slot, *, split):
        task = super().sample_task(data, jax.random.key(slot), slot, split=split)
        return task._replace(task_id=jnp.asarray(slot % 3, jnp.int32))


def test_parts_of_a_group_are_added_up_before_they_are_divided():
    state = initial_state(EXPERIMENT)
    tell = lambda source: make_evaluator(
        EXPERIMENT.learner, source, parallel=EXPERIMENT.parallel, tasks_per_batch=3
    )(state.params, state.model_state, jax.random.key(1), 6)["loss"]
    merged = tell(Halves())
    assert merged.shape == (3,)

    class Apart(Halves):
        parts_of_groups = False

    parts = tell(Apart())
    np.testing.assert_allclose(merged, (parts[:3] + parts[3:]) / 2, rtol=1e-6)


@pytest.mark.parametrize("num_turns", [1, 3])
def test_scan_is_that_of_jax_whether_it_loops_or_not(num_turns):
    kernel = jnp.full((1, 1, 3, 3), 0.1)

    def fn(image, x):
        image = jax.lax.conv(image, kernel, (1, 1), "SAME") + x
        return image, {"sum": image.sum()}

    args = jnp.ones((1, 1, 4, 4)), jnp.arange(1.0, 1.0 + num_turns)
    got, expected = jax.jit(scan, static_argnums=0)(fn, *args), jax.lax.scan(fn, *args)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected
    )
    text = jax.jit(scan, static_argnums=0).lower(fn, *args).as_text()
    assert "stablehlo.while" not in text
    looped = jax.jit(scan, static_argnums=0).lower(
        lambda c, x: (c + x, x), 0.0, args[1]
    )
    assert "stablehlo.while" in looped.as_text()
