"""What a set of unlabelled points does to the answers for it, method by method."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arm_reference import close, plain_classifier, plain_context
from sets import (
    KEY,
    LEARNERS,
    adapt,
    answer,
    images,
    make_task,
    predict,
    trained,
    value_and_gradient,
)

from jaxmeta.networks.norm import STORED

SET = images(11, 5)
ALL = jnp.ones(5, bool)
ADAPTING = [name for name in LEARNERS if name != "erm"]


def answers(name, inputs, mask=None, **changed):
    """Of a trained learner for one set."""
    params, state = trained(LEARNERS[name])
    learner = dataclasses.replace(LEARNERS[name], **changed)
    mask = jnp.ones(len(inputs), bool) if mask is None else mask
    return answer(learner, params, state, inputs, mask)


def differ(a, b):
    return float(jnp.abs(a - b).max())


# --- adapt, then predict --------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_an_answer_is_adapting_and_then_predicting(name):
    learner = LEARNERS[name]
    params, state = trained(learner)
    adapted = adapt(learner, params, state, SET)
    logits = predict(learner, params, state, adapted, SET)
    close(answers(name, SET), logits)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_point_that_was_not_in_the_set(name):
    # It is answered alone as it is among others: the set is what was adapted to.
    learner = LEARNERS[name]
    params, state = trained(learner)
    adapted = adapt(learner, params, state, SET)
    points = images(12, 3)
    together = predict(learner, params, state, adapted, points)
    alone = predict(learner, params, state, adapted, points[:1])
    close(together[:1], alone)


@pytest.mark.parametrize("name", ADAPTING)
def test_what_was_adapted_to_matters(name):
    learner = LEARNERS[name]
    params, state = trained(learner)
    found = []
    for support in (SET, 2.0 * SET - 1.0):
        adapted = adapt(learner, params, state, support)
        found.append(predict(learner, params, state, adapted, SET))
    assert differ(*found) > 1e-3


# --- who matters to whom --------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_points_does_not_matter(name):
    order = np.array([3, 0, 4, 1, 2])
    close(answers(name, SET[order]), answers(name, SET)[order])


@pytest.mark.parametrize("name", ADAPTING)
def test_an_answer_depends_on_the_other_points(name):
    other = SET.at[4].set(3.0 - SET[4])
    assert differ(answers(name, SET)[:4], answers(name, other)[:4]) > 1e-3


def test_an_answer_of_erm_depends_on_its_point_alone():
    other = SET.at[4].set(3.0 - SET[4])
    together, changed = answers("erm", SET), answers("erm", other)
    np.testing.assert_allclose(together[:4], changed[:4], atol=1e-6)
    assert differ(together[4], changed[4]) > 1e-3


def test_a_point_of_erm_that_is_nan_spoils_no_other():
    spoilt = answers("erm", SET.at[4].set(jnp.nan))
    np.testing.assert_allclose(spoilt[:4], answers("erm", SET)[:4], atol=1e-6)


# --- padding --------------------------------------------------------------------------

REAL = jnp.array([True, False, False, True, True])
FILLINGS = {
    "zeros": jnp.zeros_like(SET),
    "large": 100.0 * images(13, 5),
    "nan": jnp.full_like(SET, jnp.nan),
}


def padded_with(filling):
    return jnp.where(REAL.reshape(5, 1, 1, 1), SET, FILLINGS[filling])


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", LEARNERS)
def test_padding_changes_no_answer(name, filling):
    rows = np.flatnonzero(REAL)
    close(answers(name, padded_with(filling), REAL)[rows], answers(name, SET[rows]))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_set_of_nothing_but_padding_is_finite(name):
    found = answers(name, SET, jnp.zeros(5, bool))
    assert bool(jnp.isfinite(found).all())


# --- sets that are too small ----------------------------------------------------------


def unadapted(name, inputs):
    """The answers of the trained model as it is: stored statistics, stored context."""
    params, state = trained(LEARNERS[name])
    if not name.startswith("cml"):
        stats = state.get("stats", state)
        return plain_classifier(params.get("network", params), inputs, stats)[0]
    mean = jnp.broadcast_to(state["mean"], (len(inputs), *state["mean"].shape))
    together = jnp.concatenate([inputs, mean], -1)
    return plain_classifier(params["network"], together, state["network"])[0]


@pytest.mark.parametrize("name", ADAPTING)
def test_one_point_alone_is_not_adapted_to(name):
    learner = LEARNERS[name]
    params, state = trained(learner)
    expected = unadapted(name, SET[:1])
    with pytest.warns(UserWarning, match="a set of 1 point is too small to adapt to"):
        close(answers(name, SET[:1]), expected)
    with pytest.warns(UserWarning, match=r"min_support of Arm\w+ is 2") as caught:
        adapted = adapt(learner, params, state, SET[:1])
    assert all("\n" not in str(warning.message) for warning in caught)
    close(predict(learner, params, state, adapted, SET[:1]), expected)


@pytest.mark.parametrize("name", ADAPTING)
def test_one_point_and_padding_is_not_adapted_to(name):
    mask = jnp.array([False, True, False, False, False])
    close(answers(name, SET, mask)[1:2], unadapted(name, SET[1:2]))


@pytest.mark.parametrize("name", ADAPTING)
def test_min_support_is_the_fewest_that_are_adapted_to(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # there are five rows: nothing to warn of
        three = answers(name, SET, REAL, min_support=4)
        four = answers(name, SET, REAL.at[1].set(True), min_support=4)
    rows = np.flatnonzero(REAL)
    close(three[rows], unadapted(name, SET[rows]))
    close(four[:1], answers(name, SET, REAL.at[1].set(True))[:1])
    assert differ(three[:1], four[:1]) > 1e-3


@pytest.mark.parametrize("name", ADAPTING)
def test_one_point_may_be_adapted_to(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = answers(name, SET[:1], min_support=1)
    assert differ(found, unadapted(name, SET[:1])) > 1e-3


def test_erm_says_nothing_of_small_sets():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(answers("erm", SET[:1]), unadapted("erm", SET[:1]))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_forward_pass_with_stored_statistics(name):
    learner = LEARNERS[name]
    params, state = trained(learner)
    forward = jax.jit(lambda *args: learner.forward(*args, None, STORED))
    outputs, after = forward(params, state, SET)
    if name.startswith("cml"):  # the set's own context, but stored statistics
        contexts, _ = plain_context(params["context"], SET, state["context"])
        mean = jnp.broadcast_to(contexts.mean(0), contexts.shape)
        together = jnp.concatenate([SET, mean], -1)
        expected = plain_classifier(params["network"], together, state["network"])[0]
    else:
        expected = unadapted(name, SET)
    close(outputs.logits, expected)
    jax.tree.map(np.testing.assert_array_equal, after, state)


# --- what is adapted to, by formula ---------------------------------------------------


def test_answers_of_arm_bn():
    params, _ = trained(LEARNERS["bn"])
    close(answers("bn", SET), plain_classifier(params, SET)[0])


@pytest.mark.parametrize("norm_stats", ["running", "set"])
def test_answers_of_arm_cml(norm_stats):
    name = f"cml {norm_stats}"
    params, state = trained(LEARNERS[name])
    known = state if norm_stats == "running" else {"network": None, "context": None}
    contexts, _ = plain_context(params["context"], SET, known["context"])
    mean = jnp.broadcast_to(contexts.mean(0), contexts.shape)
    together = jnp.concatenate([SET, mean], -1)
    expected = plain_classifier(params["network"], together, known["network"])[0]
    close(answers(name, SET), expected)


# --- a learned loss that is zero ------------------------------------------------------


def without_loss():
    learner = LEARNERS["ll"]
    params, state = trained(learner)
    return {**params, "loss": jax.tree.map(jnp.zeros_like, params["loss"])}, state


def test_a_learned_loss_of_zero_moves_nothing():
    params, state = without_loss()
    found = answer(LEARNERS["ll"], params, state, SET, ALL)
    close(found, plain_classifier(params["network"], SET)[0])


def test_a_learned_loss_of_zero_has_finite_gradients():
    params, state = without_loss()
    _, grads = value_and_gradient(LEARNERS["ll"], params, state, make_task(5))
    for leaf in jax.tree.leaves(grads):
        assert bool(jnp.isfinite(leaf).all())
    assert float(jnp.abs(grads["network"]["Dense_1"]["kernel"]).max()) > 1e-4


# --- evaluation -----------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_evaluation_counts_the_points_that_are_there(name):
    learner, task = LEARNERS[name], make_task(9, num_points=5)
    mask = jnp.array(
        [[True, True, True, True, False], [False, True, True, False, True]]
    )
    task = task._replace(query=task.query._replace(mask=mask))
    params, state = trained(learner)
    metrics = jax.jit(learner.evaluate)(params, state, task, KEY)
    right = loss = 0.0
    for inputs, targets, real in zip(*task.query[:2], mask, strict=True):
        rows = np.flatnonzero(real)
        logits = np.asarray(answers(name, inputs, real), np.float64)[rows]
        targets = np.asarray(targets)[rows]
        right += (logits.argmax(-1) == targets).sum()
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss -= log_p[np.arange(len(rows)), targets].sum()
    assert float(metrics["accuracy"].total) == right
    assert float(metrics["accuracy"].count) == 7
    np.testing.assert_allclose(metrics["loss"].total, loss, rtol=1e-4)
