"""Losses, gradients and what is remembered, beside formulas and beside PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arm_reference import (
    close,
    from_torch,
    plain_classifier,
    plain_context,
    tensor,
    torch_network,
)
from sets import (
    KEY,
    LEARNERS,
    NUM_CLASSES,
    SMALL,
    answer,
    images,
    make_task,
    trained,
    value_and_gradient,
)

from jaxmeta.core.testing import assert_trees_close
from jaxmeta.meta.meta_gradient import FirstOrder, MixFlow, Reptile, Unrolled
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.shift.arm_ll import ArmLl, LearnedLoss, safe_norm
from jaxmeta.shift.erm import Erm, group_losses
from jaxmeta.surgery import FAMO, MGDA, QFFL, GroupDRO, UpWeighting

RATE = 0.1  # of ARM-LL's inner step


# --- the losses in plain JAX ----------------------------------------------------------


def cross_entropy(logits, targets):
    """Of every point."""
    log_p = logits - jax.scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    return -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]


def flat(x):
    return x.reshape(-1, *x.shape[2:])


def plain_erm(params, x, y):
    logits, _, seen = plain_classifier(params["network"], flat(x))
    return cross_entropy(logits, flat(y)).mean(), {"stats": seen, "weights": ()}


def with_context(x, contexts):
    mean = contexts.mean(0, keepdims=True)
    return jnp.concatenate([x, jnp.broadcast_to(mean, (*x.shape[:3], 2))], -1)


def plain_cml_running(params, x, y):
    contexts, seen = plain_context(params["context"], flat(x))
    contexts = contexts.reshape(*x.shape[:4], 2)
    together = [with_context(*pair) for pair in zip(x, contexts, strict=True)]
    logits, _, more = plain_classifier(params["network"], jnp.concatenate(together))
    state = {"network": more, "context": seen, "mean": contexts.mean((0, 1))}
    return cross_entropy(logits, flat(y)).mean(), state


def average(states):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *states)


def plain_cml_set(params, x, y):
    losses, states = [], []
    for one, targets in zip(x, y, strict=True):
        contexts, seen = plain_context(params["context"], one)
        together = with_context(one, contexts)
        logits, _, more = plain_classifier(params["network"], together)
        losses.append(cross_entropy(logits, targets))
        states.append({"network": more, "context": seen, "mean": contexts.mean(0)})
    return jnp.stack(losses).mean(), average(states)


def plain_bn(params, x, y):
    passes = [plain_classifier(params, one) for one in x]
    losses = [
        cross_entropy(p[0], targets) for p, targets in zip(passes, y, strict=True)
    ]
    return jnp.stack(losses).mean(), average([p[2] for p in passes])


def plain_mlp_norm(params, logits):
    """The learned loss: 32, 32 and 32 units with relu, one number, the L2 norm."""
    h = logits
    for i in range(4):
        layer = params["MLP_0"][f"Dense_{i}"]
        h = h @ layer["kernel"]
        h = h + jnp.broadcast_to(layer["bias"], h.shape)
        h = jax.nn.relu(h) if i < 3 else h
    return jnp.sqrt((h**2).sum())


def plain_ll(params, x, y):
    losses, states = [], []
    for one, targets in zip(x, y, strict=True):
        slope = jax.grad(
            lambda net, one=one: plain_mlp_norm(
                params["loss"], plain_classifier(net, one)[0]
            )
        )(params["network"])
        moved = jax.tree.map(lambda p, g: p - RATE * g, params["network"], slope)
        losses.append(cross_entropy(plain_classifier(moved, one)[0], targets).mean())
        # Stored for the network that does not move, so of that.
        states.append(plain_classifier(params["network"], one)[2])
    # The authors' code adds the groups up; here it is their mean.
    return jnp.stack(losses).mean(), average(states)


PLAIN = {
    "erm": plain_erm,
    "cml running": plain_cml_running,
    "cml set": plain_cml_set,
    "bn": plain_bn,
    "ll": plain_ll,
}


@functools.cache
def plain(name):
    return jax.jit(jax.value_and_grad(PLAIN[name], has_aux=True))


@functools.cache
def ours(name):
    """A trained learner's loss of one task: value, gradient, metrics, next state."""
    # With this seed no unit is within 1e-5 of a kink of relu or of pooling.
    learner, task = LEARNERS[name], make_task(8)
    params, state = trained(learner)
    (loss, (metrics, after)), grads = value_and_gradient(learner, params, state, task)
    return params, state, task, loss, grads, metrics, after


@pytest.mark.parametrize("name", LEARNERS)
def test_agrees_with_plain_formulas(name):
    params, state, task, loss, grads, _, after = ours(name)
    points = task.query
    (expected, seen), slopes = plain(name)(params, points.inputs, points.targets)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    close(grads, slopes)
    # A tenth of what was seen is remembered: statistics, and the mean context.
    close(after, jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state, seen))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_parameter_has_a_gradient(name):
    grads = ours(name)[4]
    for path, leaf in jax.tree.leaves_with_path(grads):
        # Nothing depends on a bias before batch normalisation, nor the last context's,
        # which joins the constant that it takes off... but for the border's zeros.
        if not path[-2].key.startswith("Conv5x5") or path[-1].key == "kernel":
            assert float(jnp.abs(leaf).max()) > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", LEARNERS)
def test_metrics_count_points(name):
    params, _, task, _, _, metrics, _ = ours(name)
    points = task.query
    assert float(metrics["accuracy"].count) == points.targets.size
    if name != "ll":  # whose sets have equally many points, so that means agree
        mean = plain(name)(params, points.inputs, points.targets)[0][0]
        np.testing.assert_allclose(metrics["loss"].compute(), mean, rtol=1e-5)


# --- the losses in PyTorch ------------------------------------------------------------


def torch_erm(nets, x, y):
    return ce(nets["network"](x.flatten(0, 1)), y.flatten(0, 1))


def ce(logits, targets):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.cross_entropy(logits, targets.long())


def torch_append(x, contexts):
    """The authors' reshape, mean, repeat, concatenate."""
    torch = pytest.importorskip("torch")
    groups, size = x.shape[:2]
    context = contexts.reshape(groups, size, *contexts.shape[1:]).mean(1)
    context = context.repeat_interleave(size, dim=0)
    return torch.cat([x.flatten(0, 1), context], dim=-1)


def torch_cml_running(nets, x, y):
    contexts = nets["context"](x.flatten(0, 1))
    return ce(nets["network"](torch_append(x, contexts)), y.flatten(0, 1))


def torch_cml_set(nets, x, y):
    torch = pytest.importorskip("torch")
    out = [nets["network"](torch_append(g[None], nets["context"](g))) for g in x]
    return ce(torch.cat(out), y.flatten(0, 1))


def torch_bn(nets, x, y):
    torch = pytest.importorskip("torch")
    return ce(torch.cat([nets["network"](g) for g in x]), y.flatten(0, 1))


def torch_ll(nets, x, y):
    torch = pytest.importorskip("torch")
    net, learned = nets["network"], nets["loss"]
    params, total = dict(net.named_parameters()), 0.0
    for group, targets in zip(x, y, strict=True):
        values = learned(torch.func.functional_call(net, params, (group,)))
        slopes = torch.autograd.grad(
            torch.linalg.vector_norm(values), list(params.values()), create_graph=True
        )
        moved = {
            name: p - RATE * g
            for (name, p), g in zip(params.items(), slopes, strict=True)
        }
        total = total + ce(torch.func.functional_call(net, moved, (group,)), targets)
    return total / len(x)  # the authors do not divide


TORCH = {
    "erm": torch_erm,
    "cml running": torch_cml_running,
    "cml set": torch_cml_set,
    "bn": torch_bn,
    "ll": torch_ll,
}


def torch_mlp(params):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    widths, layers = (NUM_CLASSES, 32, 32, 32, 1), []
    for i in range(4):
        layer = torch.nn.Linear(widths[i], widths[i + 1]).double()
        found = params["MLP_0"][f"Dense_{i}"]
        with torch.no_grad():
            layer.weight.copy_(tensor(found["kernel"]).T)
            layer.bias.copy_(tensor(found["bias"]))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def torch_networks(params):
    """Every part of a learner as a module in training mode, and how to read it back."""
    parts = params if "network" in params else {"network": params}
    return {
        part: torch_mlp(tree) if part == "loss" else torch_network(tree).train()
        for part, tree in parts.items()
    }


def gradients(nets):
    """What `backward` has left, as a tree of ours."""
    found = {}
    for part, net in nets.items():
        named = {name: p.grad for name, p in net.named_parameters()}
        if part == "loss":  # in a Sequential every other module is a layer
            named = {
                f"MLP_0.Dense_{int(name[0]) // 2}{name[1:]}": grad
                for name, grad in named.items()
            }
        found[part] = from_torch(named)
    return found


@pytest.mark.parametrize("name", LEARNERS)
def test_agrees_with_torch(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    params, _, task, loss, grads, _, _ = ours(name)
    nets = torch_networks(params)
    expected = TORCH[name](nets, tensor(task.query.inputs), tensor(task.query.targets))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    slopes = gradients(nets)
    close(grads, slopes if "network" in params else slopes["network"])


def test_the_learned_loss_has_second_order_gradients():
    # Without the way through the inner step the learned loss would not be trained.
    grads = ours("ll")[4]["loss"]
    assert float(jnp.abs(grads["MLP_0"]["Dense_0"]["kernel"]).max()) > 1e-5


def test_parameters_of_the_learned_loss():
    # Of 62 classes, as the authors' code has them.
    made = LearnedLoss().init(KEY, jnp.zeros((2, 62)), jnp.ones(2, bool))
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == 4_161


def test_the_norm_where_it_is_zero():
    x = jnp.array([3.0, -4.0, 0.0])
    np.testing.assert_allclose(jax.grad(safe_norm)(x), [0.6, -0.8, 0.0], rtol=1e-6)
    second = jax.hessian(safe_norm)
    eye = np.eye(3) / 5 - np.outer(x, x) / 125
    np.testing.assert_allclose(second(x), eye, atol=1e-6)
    assert np.isfinite(second(jnp.zeros(3))).all()


# --- inner steps of ARM-LL ------------------------------------------------------------


def test_inner_rate_and_steps():
    learner = dataclasses.replace(LEARNERS["ll"], inner_rate=0.05, inner_steps=2)
    params, state = trained(learner)
    points = make_task(3).query
    network = params["network"]
    slope_of = jax.jit(
        jax.grad(
            lambda net: plain_mlp_norm(
                params["loss"], plain_classifier(net, points.inputs[0])[0]
            )
        )
    )
    for _ in range(2):
        slope = slope_of(network)
        network = jax.tree.map(lambda p, g: p - 0.05 * g, network, slope)
    expected, _, _ = plain_classifier(network, points.inputs[0])
    got = answer(learner, params, state, points.inputs[0], points.mask[0])
    close(got, expected)


@pytest.mark.parametrize(
    ("network", "inner_steps"),
    [
        (NormMLP(features=(6,), num_classes=NUM_CLASSES), 1),
        (NormMLP(features=(6,), num_classes=NUM_CLASSES), 4),
        (SMALL, 2),
    ],
    ids=["mlp", "mlp, 4 steps", "convolutions"],
)
def test_other_ways_through_the_inner_steps(network, inner_steps):
    """MixFlow's gradient is the same."""
    settings = {"network": network, "inner_rate": 0.05, "inner_steps": inner_steps}
    task, found = make_task(8), []
    for choice in (Unrolled(), MixFlow()):
        learner = ArmLl(**settings, meta_gradient=choice)
        params, state = trained(learner)
        found.append(value_and_gradient(learner, params, state, task))
    (loss, grads), (same, grads_too) = ((v[0], gradient) for v, gradient in found)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    assert_trees_close(grads_too, grads, rtol=1e-5, atol=1e-6)
    assert jnp.abs(grads["loss"]["MLP_0"]["Dense_0"]["kernel"]).max() > 1e-5


@pytest.mark.parametrize("choice", [Reptile(), FirstOrder()], ids=repr)
def test_a_meta_gradient_that_does_not_reach_the_learned_loss(choice):
    with pytest.raises(ValueError, match="does not reach the learned loss"):
        ArmLl(network=SMALL, meta_gradient=choice)


# --- padding in training --------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_padding_trains_nothing(name):
    learner = LEARNERS[name]
    params, state, task, *_ = ours(name)
    mask = jnp.ones((2, 4), bool).at[:, 1].set(False)
    found = []
    for filling, target in ((images(50, 2), 0), (100.0 * images(51, 2), 2)):
        points = task.query._replace(
            inputs=task.query.inputs.at[:, 1].set(filling),
            targets=task.query.targets.at[:, 1].set(target),
            mask=mask,
        )
        padded = task._replace(query=points)
        found.append(value_and_gradient(learner, params, state, padded))
    close(*found)
    # The mean is over the points that are there.
    (loss, (metrics, _)), _ = found[0]
    assert float(metrics["loss"].count) == 6
    np.testing.assert_allclose(loss, metrics["loss"].compute(), rtol=1e-5)


# --- groups weighed inside a batch ----------------------------------------------------

NUM_GROUPS = 4


@jax.jit
def point_losses(params, task):
    points = task.query
    logits, _, _ = plain_classifier(params["network"], flat(points.inputs))
    return cross_entropy(logits, flat(points.targets))


def of_groups(params, task):
    """`[NUM_GROUPS]` mean losses, 0 for a group that is absent."""
    member = np.eye(NUM_GROUPS)[np.ravel(task.query.groups)]
    share = member / np.maximum(member.sum(0), 1)
    return jnp.asarray(share.T, jnp.float32) @ point_losses(params, task)


def mixed_task(seed, groups):
    return make_task(seed, groups=jnp.array(groups))


def weighed(weighting, num_groups=NUM_GROUPS):
    return Erm(network=SMALL, weighting=weighting, num_groups=num_groups)


def test_group_losses():
    losses = jnp.array([1.0, 2.0, 4.0, 0.0, 8.0])
    mask = jnp.array([True, True, True, False, True])
    found = group_losses(losses, jnp.array([2, 0, 2, 2, 0]), mask, 4)
    np.testing.assert_allclose(found, [5.0, 0.0, 2.5, 0.0])


def test_group_dro_over_three_steps():
    step_size = 0.01  # as the ARM paper's runs
    learner = weighed(GroupDRO(num_tasks=NUM_GROUPS, step_size=step_size))
    params, state = trained(learner)
    q = np.full(NUM_GROUPS, 1 / NUM_GROUPS)
    np.testing.assert_allclose(state["weights"], q)
    batches = (
        [[0, 0, 0, 2], [1, 2, 0, 0]],  # group 3 is absent
        [[3, 3, 3, 3], [3, 1, 3, 3]],
        [[2, 0, 1, 3], [2, 1, 0, 3]],
    )
    for step, groups in enumerate(batches):
        task = mixed_task(step, groups)
        losses = np.asarray(of_groups(params, task), np.float64)
        q = q * np.exp(step_size * losses)
        q = q / q.sum()
        (loss, (metrics, state)), grads = value_and_gradient(
            learner, params, state, task
        )
        # The q of this step, which counts as a constant.
        np.testing.assert_allclose(loss, q @ losses, rtol=1e-5)
        np.testing.assert_allclose(state["weights"], q, rtol=1e-5)
        weights = jnp.asarray(q, jnp.float32)
        close(grads, jax.grad(lambda p, t=task, w=weights: w @ of_groups(p, t))(params))
        mean = point_losses(params, task).mean()
        np.testing.assert_allclose(metrics["loss"].compute(), mean, rtol=1e-5)


@pytest.mark.parametrize("q", [0.0, 2.5])
@pytest.mark.parametrize("groups", [[[0, 1, 2, 3], [0, 0, 1, 2]], [[0] * 4, [2] * 4]])
def test_q_ffl(q, groups):
    # Li et al., equation 2: minimise 1/G sum_g L_g^(q+1) / (q+1).
    learner, task = weighed(QFFL(q=q)), mixed_task(1, groups)
    params, state = trained(learner)
    fair = lambda p: (of_groups(p, task) ** (q + 1)).mean() / (q + 1)
    _, grads = value_and_gradient(learner, params, state, task)
    close(grads, jax.grad(fair)(params))


def test_weighing_leaves_predictions_alone():
    learner = weighed(GroupDRO(num_tasks=NUM_GROUPS))
    params, state = trained(learner)
    points = make_task(2).query
    got = answer(learner, params, state, points.inputs[0], points.mask[0])
    close(got, plain_classifier(params["network"], points.inputs[0], state["stats"])[0])


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weighed(MGDA()), "MGDA looks at gradients of tasks"),
        (lambda: weighed(GroupDRO(num_tasks=3)), r"num_groups \(4\) must be .*\(3\)"),
        (lambda: weighed(None, 0), "num_groups must be >= 1, got 0"),
        (lambda: weighed(QFFL(), 1), "num_groups"),
        (lambda: weighed(UpWeighting(sizes=(5, 6)), 2), "point_balanced"),
        (lambda: weighed(FAMO(num_tasks=4)), "losses after the step"),
    ],
    ids=["gram", "num_tasks", "zero", "q-FFL of one group", "sizes", "FAMO"],
)
def test_weightings_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("bn", "min_support", 0),
        ("cml running", "min_support", -1),
        ("ll", "min_support", 0),
        ("ll", "inner_steps", 0),
        ("ll", "inner_rate", 0.0),
        ("ll", "inner_rate", float("nan")),
    ],
)
def test_numbers_that_are_refused(name, field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*, got {value}") as error:
        dataclasses.replace(LEARNERS[name], **{field: value})
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("untyped")
def test_unknown_norm_stats():
    with pytest.raises(ValueError, match="'running' or 'set', got 'batch'"):
        dataclasses.replace(LEARNERS["cml set"], norm_stats="batch")
