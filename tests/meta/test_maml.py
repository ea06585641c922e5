"""Meta-gradients against finite differences; what is and is not adapted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Examples, Task
from jaxmeta.core.testing import assert_trees_close
from jaxmeta.meta.anil import Anil
from jaxmeta.meta.maml import Adapted, Maml, MamlState
from jaxmeta.meta.meta_gradient import (
    FirstOrder,
    Implicit,
    MixFlow,
    Reptile,
    Truncated,
    Unrolled,
)
from jaxmeta.networks.conv import Conv4, LoopConv4
from jaxmeta.networks.mlp import MLP
from jaxmeta.symmetry.layers import MSRDense

KEY = jax.random.key(0)
SIZE, OUT = 3, 2
STATE = MamlState(stats=(), steps=None)

NETWORKS = {
    "MLP": MLP(features=(3, OUT), activation=nn.tanh),  # smooth, as differences need
    "MSRDense": MSRDense(features=OUT, inner_dim=3, use_bias=True),
}
RATES = {
    "fixed": {"rates": "fixed"},
    "per tensor": {"rates": "per_tensor"},
    "per parameter": {"rates": "per_parameter"},
    "per tensor and step": {"rates": "per_tensor", "per_step": True},
    "per parameter and step": {"rates": "per_parameter", "per_step": True},
}

# Central differences with h = 1e-5 of float64 functions of order 1 err by about
# h^2 = 1e-10 from curvature and 1e-16 / h = 1e-11 from rounding.
STEP = 1e-5
DIFFERENCE = {"rtol": 1e-6, "atol": 1e-8}

each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
each_kind_of_rate = pytest.mark.parametrize("rates", RATES.values(), ids=RATES)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def make_task(num_support=2, num_query=3, size=SIZE, out=OUT) -> Task:
    rng = np.random.default_rng(1)
    draw = lambda n: Examples(
        jnp.asarray(rng.normal(size=(n, size))), jnp.asarray(rng.normal(size=(n, out)))
    )
    return Task(draw(num_support), draw(num_query), jnp.zeros((), jnp.int32))


def start(learner, task):
    """Parameters of order 1 everywhere, so that no gradient is small by accident."""
    params, _ = learner.init(KEY, task)
    rng = np.random.default_rng(2)
    # Positive offsets: rates among them, which must not vanish.
    return jax.tree.map(lambda p: jnp.asarray(0.2 + 0.5 * rng.random(p.shape)), params)


def outer_loss(learner, task):
    return lambda params: learner.loss(params, STATE, task, KEY)[0]


def differences(fn, tree):
    """The gradient of a scalar function of a tree, one central difference per entry."""
    flat, unravel = ravel_pytree(tree)
    nudges = STEP * jnp.eye(flat.size)
    at = jax.jit(jax.vmap(lambda nudge: fn(unravel(flat + nudge))))
    return unravel((at(nudges) - at(-nudges)) / (2 * STEP))


# The meta-gradient.


@each_network
@each_kind_of_rate
def test_second_order_gradient_equals_finite_differences(network, rates):
    check_second_order(Maml(network=network, inner_steps=3, **rates))


@each_network
def test_one_step_of_second_order_equals_finite_differences(network):
    check_second_order(Maml(network=network, rates="per_tensor"))


def check_second_order(learner):
    task = make_task()
    params = start(learner, task)
    loss = outer_loss(learner, task)
    gradient = jax.jit(jax.grad(loss))(params)
    assert_trees_close(gradient, differences(loss, params), **DIFFERENCE)


def surrogate(learner, task, params, num_steps):
    """The query loss with every inner gradient replaced by the number that it is here.

    The inner gradients are finite differences of the support loss.
    """
    error = lambda outputs, targets: jnp.mean((outputs - targets) ** 2)
    support_loss = lambda fast: error(
        learner.predict(params, Adapted(fast, ()), task.support.inputs),
        task.support.targets,
    )
    rate_at = lambda tree, t: (
        jax.tree.map(lambda r: r[t], tree) if learner.per_step else tree
    )
    descend = lambda fast, rates, grads: jax.tree.map(
        lambda v, r, g: v - r * g, fast, rates, grads
    )
    inner, fast = [], params["fast"]
    for t in range(num_steps):
        inner.append(differences(support_loss, fast))
        fast = descend(fast, rate_at(params["rates"], t), inner[-1])

    def loss(params):
        fast = params["fast"]
        for t, grads in enumerate(inner):
            fast = descend(fast, rate_at(params["rates"], t), grads)
        outputs = learner.predict(params, Adapted(fast, ()), task.query.inputs)
        return error(outputs, task.query.targets)

    return loss


@each_network
@pytest.mark.parametrize(
    "rates", [RATES["per tensor"], RATES["per parameter and step"]]
)
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_first_order_gradient_is_that_of_the_surrogate(network, rates, inner_steps):
    learner = Maml(
        network=network,
        meta_gradient=FirstOrder(),
        inner_steps=inner_steps,
        **rates,
    )
    task = make_task()
    params = start(learner, task)
    instead = surrogate(learner, task, params, inner_steps)
    value, gradient = jax.jit(jax.value_and_grad(outer_loss(learner, task)))(params)
    np.testing.assert_allclose(value, instead(params), **DIFFERENCE)
    assert_trees_close(gradient, differences(instead, params), **DIFFERENCE)


def test_first_order_is_another_gradient():
    task = make_task()
    learner = Maml(network=NETWORKS["MSRDense"])
    params = start(learner, task)
    gradient = lambda learner: jax.jit(jax.grad(outer_loss(learner, task)))(params)
    second = gradient(learner)
    first = gradient(dataclasses.replace(learner, meta_gradient=FirstOrder()))
    assert np.abs(first["fast"]["v"] - second["fast"]["v"]).min() > 1e-3


def test_the_symmetry_learns_in_first_order_too():
    # W' = U v', and v' is a number: the gradient of U is that of W' times v'.
    task = make_task()
    learner = Maml(
        network=MSRDense(features=OUT, inner_dim=3), meta_gradient=FirstOrder()
    )
    params = start(learner, task)
    gradient = jax.grad(outer_loss(learner, task))(params)["slow"]["symmetry"]["U"]
    v = np.asarray(learner.adapt(params, STATE, task.support, KEY).fast["v"])
    weights = (np.asarray(params["slow"]["symmetry"]["U"]) @ v).reshape(OUT, SIZE)
    errors = np.asarray(task.query.inputs) @ weights.T - np.asarray(task.query.targets)
    of_weights = 2 / errors.size * errors.T @ np.asarray(task.query.inputs)
    np.testing.assert_allclose(gradient, np.outer(of_weights, v), rtol=1e-12)
    assert np.abs(gradient).min() > 1e-4


@each_network
@pytest.mark.parametrize("choice", [Unrolled(), MixFlow()], ids=repr)
def test_exact_meta_gradients_are_one(network, choice):
    task = make_task()
    learner = Maml(network=network, inner_steps=4, meta_gradient=choice)
    params = start(learner, task)
    gradient = lambda learner: jax.jit(jax.grad(outer_loss(learner, task)))(params)
    kept = gradient(dataclasses.replace(learner, meta_gradient=Unrolled(remat=False)))
    assert_trees_close(gradient(learner), kept, rtol=1e-12, atol=1e-14)


# What the inner loop does.


def test_one_step_of_a_linear_layer_in_closed_form():
    # The gradient of |W x - y|^2 / out is 2 / out (W x - y) x'.
    size, out, rate = 5, 4, 0.3
    task = make_task(num_support=1, size=size, out=out)
    learner = Maml(network=MLP(features=(out,), use_bias=False), inner_rate=rate)
    params, _ = learner.init(KEY, task)
    (x,), (y,) = np.asarray(task.support.inputs), np.asarray(task.support.targets)
    w = np.asarray(params["fast"]["Dense_0"]["kernel"]).T
    adapted = (
        learner.adapt(params, STATE, task.support, KEY).fast["Dense_0"]["kernel"].T
    )
    expected = w - rate * 2 / out * np.outer(w @ x - y, x)
    # The rate is float32, as all parameters are.
    np.testing.assert_allclose(adapted, expected, rtol=1e-6)


def test_one_step_of_msr_moves_v_along_the_projected_gradient():
    # v' = v - rate U' vec(dL/dW), with the U that does not move.
    task = make_task(num_support=1)
    learner = Maml(network=MSRDense(features=OUT, inner_dim=3))
    params = start(learner, task)
    u = np.asarray(params["slow"]["symmetry"]["U"])
    v = np.asarray(params["fast"]["v"])
    rate = float(params["rates"]["v"])
    (x,), (y,) = np.asarray(task.support.inputs), np.asarray(task.support.targets)
    of_weights = 2 / OUT * np.outer((u @ v).reshape(OUT, SIZE) @ x - y, x)
    adapted = learner.adapt(params, STATE, task.support, KEY).fast["v"]
    np.testing.assert_allclose(adapted, v - rate * u.T @ of_weights.ravel(), rtol=1e-12)


def test_steps_of_adaptation_add_up():
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], inner_steps=3)
    params = start(learner, task)
    once = dataclasses.replace(learner, inner_steps=1)
    fast = params["fast"]
    for _ in range(3):
        fast = once.adapt({**params, "fast": fast}, STATE, task.support, KEY).fast
    together = learner.adapt(params, STATE, task.support, KEY).fast
    assert_trees_close(together, fast, rtol=1e-12, atol=1e-14)


def test_rates_of_zero_adapt_nothing():
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], inner_steps=2)
    params = start(learner, task)
    params["rates"] = jax.tree.map(jnp.zeros_like, params["rates"])
    adapted = learner.adapt(params, STATE, task.support, KEY).fast
    assert_trees_close(adapted, params["fast"], rtol=0.0, atol=0.0)


def test_loss_and_evaluate_agree_on_one_protocol():
    task = make_task()
    learner = Maml(network=NETWORKS["MSRDense"], inner_steps=2)
    params = start(learner, task)
    loss, (metrics, model_state) = learner.loss(params, STATE, task, KEY)
    np.testing.assert_allclose(metrics["loss"].compute(), loss, rtol=1e-6)  # float32
    measured = learner.evaluate(params, STATE, task, KEY)
    np.testing.assert_allclose(measured["loss"].compute(), loss, rtol=1e-6)
    assert model_state == STATE


def test_evaluation_may_take_more_steps():
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], inner_steps=1, eval_inner_steps=3)
    params = start(learner, task)
    thrice = Maml(network=NETWORKS["MLP"], inner_steps=3)
    once = Maml(network=NETWORKS["MLP"], inner_steps=1)
    measure = lambda learner: learner.evaluate(params, STATE, task, KEY)
    assert_trees_close(measure(learner), measure(thrice), rtol=0.0, atol=0.0)
    loss = lambda learner: outer_loss(learner, task)(params)
    np.testing.assert_array_equal(loss(learner), loss(once))


# Which parameters there are, and which of them move.


@each_network
def test_adapt_returns_the_fast_parameters_and_nothing_else(network):
    task = make_task()
    learner = Maml(network=network, inner_steps=2)
    params = start(learner, task)
    adapted = learner.adapt(params, STATE, task.support, KEY).fast
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(adapted) == shapes(params["fast"])
    moved = jax.tree.map(lambda a, b: bool(np.all(a != b)), adapted, params["fast"])
    assert all(jax.tree.leaves(moved))


def test_the_symmetry_is_slow_and_the_rest_is_fast():
    params, model_state = Maml(network=NETWORKS["MSRDense"]).init(KEY, make_task())
    assert jax.tree.map(jnp.shape, params) == {
        "fast": {"v": (3,), "bias": (OUT,)},
        "slow": {"symmetry": {"U": (OUT * SIZE, 3)}},
        "rates": {"v": (), "bias": ()},
    }
    assert model_state == STATE


def test_a_plain_network_has_nothing_slow():
    params, _ = Maml(network=NETWORKS["MLP"]).init(KEY, make_task())
    assert params["slow"] == {}


@pytest.mark.parametrize(
    ("rates", "shape"),
    [
        (RATES["per tensor"], ()),
        (RATES["per parameter"], (3,)),
        (RATES["per tensor and step"], (2,)),
        (RATES["per parameter and step"], (2, 3)),
    ],
)
def test_shapes_and_start_of_learned_rates(rates, shape):
    learner = Maml(network=NETWORKS["MSRDense"], inner_steps=2, inner_rate=0.5, **rates)
    params, _ = learner.init(KEY, make_task())
    np.testing.assert_array_equal(params["rates"]["v"], np.full(shape, 0.5))


def test_fixed_rates_are_not_parameters():
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], rates="fixed", inner_rate=0.25)
    params, _ = learner.init(KEY, task)
    assert sorted(params) == ["fast", "slow"]
    learned = dataclasses.replace(learner, rates="per_tensor")
    same, _ = learned.init(KEY, task)
    adapted = learner.adapt(params, STATE, task.support, KEY).fast
    expected = learned.adapt(same, STATE, task.support, KEY).fast
    assert_trees_close(adapted, expected, rtol=1e-12, atol=1e-14)


# Bad settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "inner_steps must be >= 1, got 0"),
        ({"eval_inner_steps": 0}, "eval_inner_steps must be >= 1, got 0"),
        ({"eval_inner_steps": -2}, "eval_inner_steps must be >= 1, got -2"),
        ({"inner_rate": 0.0}, "inner_rate must be a positive finite number, got 0.0"),
        ({"inner_rate": -1.0}, "inner_rate must be a positive .* got -1.0"),
        ({"inner_rate": float("nan")}, "inner_rate must be a positive .* got nan"),
        ({"inner_rate": float("inf")}, "inner_rate must be a positive .* got inf"),
        (
            {"per_step": True, "inner_steps": 2, "eval_inner_steps": 3},
            r"eval_inner_steps must equal inner_steps \(2\), got 3",
        ),
    ],
)
def test_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Maml(network=NETWORKS["MLP"], **settings)


def test_anil_moves_the_head_alone_and_is_maml_on_fixed_features():
    task = make_task()
    anil = Anil(network=NETWORKS["MLP"], only=("Dense_1",), inner_steps=2)
    params = start(anil, task)
    assert set(params["fast"]) == set(params["rates"]) == {"Dense_1"}
    body = params["slow"]["params"].pop("Dense_0")
    assert params["slow"] == {"params": {}}
    params["slow"]["params"]["Dense_0"] = body
    features = lambda x: jnp.tanh(x @ body["kernel"] + body["bias"][None])
    of_features = lambda examples: examples._replace(inputs=features(examples.inputs))
    seen = task._replace(
        support=of_features(task.support), query=of_features(task.query)
    )
    head = Maml(network=MLP(features=(OUT,)), inner_steps=2)
    rename = lambda tree: {"Dense_0": tree["Dense_1"]}
    of_head = {
        "fast": rename(params["fast"]),
        "slow": {},
        "rates": rename(params["rates"]),
    }
    value, gradient = jax.value_and_grad(outer_loss(anil, task))(params)
    other, expected = jax.value_and_grad(outer_loss(head, seen))(of_head)
    np.testing.assert_allclose(value, other, rtol=1e-12)
    assert_trees_close(rename(gradient["fast"]), expected["fast"], rtol=1e-10)
    # What is common to all tasks learns in the outer loop.
    assert_trees_close(
        gradient, differences(outer_loss(anil, task), params), **DIFFERENCE
    )


def test_refuses_to_move_what_is_not_there():
    learner = Maml(network=NETWORKS["MLP"], only=("Dense_7",))
    words = r"only names Dense_7, .* are Dense_0, Dense_1"
    with pytest.raises(ValueError, match=words):
        learner.init(KEY, make_task())


def test_refuses_rates_that_there_are_not():
    learner = Maml(network=NETWORKS["MLP"])
    # Around the constructor, where the tests' own type checks would object first.
    object.__setattr__(learner, "rates", "per-tensor")
    with pytest.raises(ValueError, match=r"rates must be one of .* got 'per-tensor'"):
        learner.__post_init__()


def test_refuses_to_learn_rates_that_have_no_gradient():
    with pytest.raises(ValueError, match=r"rates must be .fixed.* got 'per_tensor'"):
        Maml(network=NETWORKS["MLP"], meta_gradient=Implicit())


def test_takes_equal_steps_of_evaluation_with_rates_per_step():
    learner = Maml(
        network=NETWORKS["MLP"], per_step=True, inner_steps=2, eval_inner_steps=2
    )
    assert learner.num_eval_steps == 2


# Positive rates.


@pytest.mark.parametrize("rate", [1e-3, 0.4, 30.0])
def test_positive_rates_start_where_they_should(rate):
    learner = Maml(network=NETWORKS["MLP"], positive_rates=True, inner_rate=rate)
    params, _ = learner.init(KEY, make_task())
    for learned in jax.tree.leaves(params["rates"]):
        assert float(jnp.logaddexp(learned, 0.0)) == pytest.approx(rate, rel=1e-6)


def test_positive_rates_are_softpluses():
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], positive_rates=True)
    plain = Maml(network=NETWORKS["MLP"])
    params = start(learner, task)
    of_plain = {**params, "rates": jax.tree.map(jax.nn.softplus, params["rates"])}
    assert_trees_close(
        learner.adapt(params, STATE, task.support, KEY),
        plain.adapt(of_plain, STATE, task.support, KEY),
        rtol=1e-12,
    )
    check_second_order(learner)


# The multi-step loss.


def losses_of_steps(learner, params, task):
    """The query loss after every inner step."""
    outputs = [
        dataclasses.replace(
            learner, inner_steps=n, per_step=False, multi_step_loss=0
        ).evaluate(params, STATE, task, KEY)
        for n in range(1, learner.inner_steps + 1)
    ]
    return np.array([float(metrics["loss"].compute()) for metrics in outputs])


@pytest.mark.parametrize(
    ("done", "weights"),
    [
        (0, [1 / 3, 1 / 3, 1 / 3]),
        (5, [1 / 6, 1 / 6, 2 / 3]),
        (10, [0.0, 0.0, 1.0]),
        (99, [0.0, 0.0, 1.0]),
    ],
)
def test_the_multi_step_loss_ends_with_the_last_step(done, weights):
    task = make_task()
    learner = Maml(network=NETWORKS["MLP"], inner_steps=3, multi_step_loss=10)
    params, state = start(learner, task), learner.init(KEY, task)[1]
    assert float(state.steps) == 0
    state = state._replace(steps=jnp.asarray(float(done)))
    loss, (metrics, new) = learner.loss(params, state, task, KEY)
    losses = losses_of_steps(learner, params, task)
    np.testing.assert_allclose(loss, losses @ weights, rtol=1e-5)  # float32 metrics
    np.testing.assert_allclose(metrics["loss"].compute(), losses[-1], rtol=1e-5)
    assert float(new.steps) == done + 1


def test_the_multi_step_loss_has_its_gradient():
    task = make_task()
    learner = Maml(
        network=NETWORKS["MLP"], inner_steps=2, per_step=True, multi_step_loss=4
    )
    params = start(learner, task)
    state = MamlState(stats=(), steps=jnp.asarray(1.0))
    loss = lambda params: learner.loss(params, state, task, KEY)[0]
    gradient = jax.jit(jax.grad(loss))(params)
    assert_trees_close(gradient, differences(loss, params), **DIFFERENCE)


@pytest.mark.parametrize("remat", [True, False])
def test_the_multi_step_loss_recomputes_every_step_or_none(remat):
    task = make_task()
    learner = Maml(
        network=NETWORKS["MLP"],
        inner_steps=3,
        multi_step_loss=4,
        meta_gradient=Unrolled(remat=remat),
    )
    params, state = learner.init(KEY, task)
    loss = lambda params: learner.loss(params, state, task, KEY)[0]
    jaxpr = jax.make_jaxpr(loss)(params)
    recomputed = [eqn for eqn in jaxpr.eqns if eqn.primitive.name.startswith("remat")]
    assert len(recomputed) == (3 if remat else 0)


# Reptile.


def test_reptile_goes_towards_where_the_steps_end():
    task = make_task()
    learner = Maml(
        network=NETWORKS["MLP"],
        rates="fixed",
        inner_steps=3,
        meta_gradient=Reptile(),
    )
    params = start(learner, task)
    value, gradient = jax.value_and_grad(outer_loss(learner, task))(params)
    plain = dataclasses.replace(learner, meta_gradient=FirstOrder())
    np.testing.assert_allclose(value, outer_loss(plain, task)(params), rtol=1e-12)
    end = learner.adapt(params, STATE, task.support, KEY).fast
    away = jax.tree.map(jnp.subtract, params["fast"], end)
    assert_trees_close(gradient["fast"], away, rtol=1e-12)
    # Whatever is asked: the query has no part in it.
    other = task._replace(query=jax.tree.map(lambda x: x + 1.0, task.query))
    again = jax.grad(outer_loss(learner, other))(params)
    assert_trees_close(gradient, again, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta_gradient": Reptile()}, "with the meta-gradient Reptile"),
        (
            {"rates": "fixed", "positive_rates": True},
            "positive_rates must be False with rates .fixed.",
        ),
        ({"multi_step_loss": -1}, "multi_step_loss must be >= 0, got -1"),
        (
            {"multi_step_loss": 3, "meta_gradient": Truncated()},
            "multi_step_loss must be 0 with the meta-gradient Truncated, .* got 3",
        ),
    ],
)
def test_refuses_what_does_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        Maml(network=NETWORKS["MLP"], **settings)


def test_reptile_refuses_what_it_cannot_learn():
    learner = Maml(network=NETWORKS["MSRDense"], rates="fixed", meta_gradient=Reptile())
    with pytest.raises(ValueError, match=r"learns only what .* also has symmetry"):
        learner.init(KEY, make_task())


IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 1))


def _of_images(kind, choice):
    """The meta-gradient of five inner steps on images, float64."""
    examples = lambda x: Examples(jnp.asarray(x), jnp.arange(len(x)) % 2)
    task = Task(examples(IMAGES[:2]), examples(IMAGES[2:]), jnp.zeros((), jnp.int32))
    network = kind(features=2, num_classes=2, num_blocks=1)
    learner = Maml(
        network=network,
        objective=cross_entropy,
        inner_steps=5,
        rates="per_tensor" if choice.learns_rates else "fixed",
        meta_gradient=choice,
    )
    params, state = learner.init(KEY, task)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    loss = lambda p: learner.loss(p, state, task, KEY)[0]
    return jax.jit(jax.grad(loss))(params)


@pytest.fixture(scope="module")
def unrolled_on_images():
    with jax.enable_x64(True):
        return _of_images(Conv4, Unrolled())


def test_mixflow_is_exact_on_a_convolutional_network(unrolled_on_images):
    exact = {"rtol": 1e-5, "atol": 1e-9}
    assert_trees_close(_of_images(Conv4, MixFlow()), unrolled_on_images, **exact)


def test_several_steps_of_the_other_convolution_are_the_same(unrolled_on_images):
    """They are no compiled loop on a CPU, where one would be slow."""
    exact = {"rtol": 1e-5, "atol": 1e-9}
    for choice in (Unrolled(), Unrolled(remat=False), MixFlow()):
        assert_trees_close(_of_images(LoopConv4, choice), unrolled_on_images, **exact)


def test_implicit_gradients_go_through_either_convolution():
    patched, looped = (_of_images(kind, Implicit()) for kind in (Conv4, LoopConv4))
    assert_trees_close(looped, patched, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("choice", [MixFlow(), Implicit()], ids=repr)
def test_a_loss_without_a_forward_derivative_is_refused(choice):
    @jax.custom_vjp
    def halved(x):
        return x

    halved.defvjp(lambda x: (x, None), lambda _, g: (g / 2,))
    with pytest.raises(ValueError, match=r"jax\.custom_vjp\)\. Take .* Unrolled"):
        choice.descend(
            lambda v, w: (halved(v) * w).sum(),
            jnp.ones(2),
            jnp.ones(2),
            jnp.ones(2),
            num_steps=2,
            per_step=False,
        )
