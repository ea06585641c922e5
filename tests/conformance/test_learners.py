"""What every learner has to do."""

import chex
import jax
import numpy as np
import optax
import pytest

from jaxmeta import Parallel
from jaxmeta.core.config import from_json, to_json
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.testing import assert_backends_agree
from jaxmeta.meta.meta_gradient import Reptile

KEY = jax.random.key(0)
ALL = Parallel()


def test_backends_agree(case):
    assert_backends_agree(case.learner, case.source, atol=case.atol)


def test_loss_and_gradient_are_finite(trained):
    states, metrics, _ = trained
    assert [int(state.skipped) for state in states] == [0, 0, 0, 0]
    assert all(np.isfinite(m["loss"].compute()) for m in metrics)


def test_steps_lower_the_loss(case, trained):
    if getattr(case.learner, "meta_gradient", None) == Reptile():
        pytest.skip("Reptile descends no loss of the query")
    _, metrics, _ = trained
    first, second, third = (float(m["loss"].compute()) for m in metrics)
    assert third < second < first


def test_every_parameter_gets_a_gradient(trained):
    (*_, end), _, _ = trained
    gradients = optax.tree.get(end.opt_state, "trace")
    chex.assert_trees_all_equal_shapes(gradients, end.params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(gradient), f"{jax.tree_util.keystr(path)} has none"


def test_another_step_does_not_recompile(trained):
    _, _, compiled = trained
    assert compiled == []


def test_shapes_and_dtypes_are_preserved(trained):
    (start, *_, end), _, _ = trained
    chex.assert_trees_all_equal_shapes_and_dtypes(end, start)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(end.params)} == {"float32"}


def test_params_are_a_function_of_the_key(case):
    example = case.source.example
    first, again, other = (
        jax.tree.leaves(case.learner.init(jax.random.key(seed), example)[0])
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_learner_is_its_configuration(case):
    again = from_json(to_json(case.learner))
    assert again == case.learner
    assert hash(again) == hash(case.learner)
    assert to_json(again) == to_json(case.learner)


def test_a_source_is_its_configuration(case):
    case.source.example  # noqa: B018 - what it caches must not count
    again = from_json(to_json(case.source))
    assert again == case.source
    assert hash(again) == hash(case.source)


def test_learners_are_told_apart(case, request):
    cases = request.node.session.config.stash.get(_SEEN, {})
    assert cases.setdefault(case.learner, case.name) == case.name
    request.node.session.config.stash[_SEEN] = cases


_SEEN = pytest.StashKey[dict]()


def test_evaluation_is_finite_and_names_the_loss(case, trained):
    (*_, end), _, _ = trained
    evaluate = make_evaluator(
        case.learner, case.source, split="validation", parallel=ALL, tasks_per_batch=4
    )
    values = evaluate(end.params, end.model_state, KEY, 5)
    classify = case.name in ("protonet", "one-head", "head-a-task") or any(
        part in case.name for part in ("conv4", "shift-")
    )
    expected = {"loss", "accuracy"} if classify else {"loss"}
    assert set(values) == expected
    assert {rows.shape for rows in values.values()} == {(5,)}
    assert all(np.isfinite(rows).all() for rows in values.values())
