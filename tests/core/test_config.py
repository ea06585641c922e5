"""Objects to JSON and back, and what is refused on the way."""

import dataclasses
import functools
import json
from typing import Any

import flax.linen as nn
import optax
import pytest

from jaxmeta import Experiment, Maml, MSRDense, Optimizer, Parallel, sum_over_tasks
from jaxmeta.core.config import TRUSTED, config_hash, differences, from_json, to_json
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.networks.mlp import MLP
from jaxmeta.symmetry.layers import LocallyConnected, Signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    value: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Positive:
    value: float = 1.0

    def __post_init__(self):
        if self.value <= 0:
            raise ValueError(f"value must be positive, got {self.value}.")


class Plain:
    """Not a dataclass."""

    def method(self):
        return None

    @classmethod
    def made(cls):
        return cls()


OURS = (*TRUSTED, __name__.partition(".")[0])


def _through_text(obj):
    return from_json(json.loads(json.dumps(to_json(obj))), OURS)


@pytest.mark.parametrize(
    "obj",
    [
        None,
        True,
        3,
        0.1,
        "highest",
        (1, (2.5, "a"), None),
        Parallel(backend="pmap", task_batch_size=3),
        Optimizer(aggregator=sum_over_tasks, transform=optax.sgd, clip_norm=1.0),
        MLP(features=(3, 2), activation=nn.tanh, use_bias=False),
        Signal(LocallyConnected(features=1, kernel_size=3)),
        Maml(network=MSRDense(features=4, inner_dim=2), objective=cross_entropy),
        Experiment(learner=smoke_learner(), source=smoke_source(), seed=7),
        Holder(value=Holder(value=(Holder(), 1))),
        Holder(value=Plain),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_a_round_trip_through_text_gives_an_equal_object(obj):
    again = _through_text(obj)
    assert again == obj
    assert to_json(again) == to_json(obj)


def test_a_partial_keeps_its_function_and_keywords():
    made = _through_text(functools.partial(optax.sgd, momentum=0.9, nesterov=True))
    assert made.func is optax.sgd
    assert made.keywords == {"momentum": 0.9, "nesterov": True}


def test_linen_names_and_parents_are_not_written():
    assert set(to_json(MLP(features=(2,)))) == {
        "class",
        "features",
        "activation",
        "use_bias",
    }


def test_tools_that_sort_keys_do_no_harm():
    # `class` is then no longer the first key.
    optimizer = Optimizer(transform=functools.partial(optax.sgd, momentum=0.5))
    text = json.dumps(to_json(optimizer), sort_keys=True)
    assert from_json(json.loads(text)).transform.keywords == {"momentum": 0.5}


@pytest.mark.parametrize(
    "obj",
    [
        Holder(value={"a": 1}),
        Holder(value=object()),
        Holder(value=1j),
        Holder(value=lambda x: x),
        Holder(value=functools.partial(lambda x: x)),
        Holder(value=functools.partial(optax.sgd, 0.1)),
        Holder(value=Plain().method),
        Holder(value=functools.partial(Plain().method)),
        Holder(value=b"bytes"),
    ],
    ids=[
        "dict",
        "object",
        "complex",
        "lambda",
        "partial-of-lambda",
        "partial-with-positions",
        "method",
        "partial-of-method",
        "bytes",
    ],
)
def test_what_would_not_come_back_is_refused(obj):
    with pytest.raises(TypeError, match="cannot write a"):
        to_json(obj)


def test_a_closure_is_refused():
    def closure():
        return obj

    obj = Holder(value=closure)
    with pytest.raises(TypeError, match="module-level functions"):
        to_json(obj)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"class": f"{__name__}:Plain"}, "is not a dataclass"),
        ({"class": "optax:adam"}, "is not a dataclass"),
        ({"class": "jaxmeta.gone:X"}, "jaxmeta.gone:X cannot be imported"),
        ({"class": "os:system"}, "of no trusted package"),
        ({"partial": "subprocess:run", "args": ["true"]}, "of no trusted package"),
        ({"function": "jaxmetal:f"}, "of no trusted package"),
        ({"class": "jaxmeta.core.parallel:Missing"}, "cannot be imported"),
        ({"function": "optax:no_such_optimiser"}, "cannot be imported"),
        ({"partial": "optax:no_such_optimiser", "b": 1}, "cannot be imported"),
        ({"class": "optax"}, "cannot be imported"),
        ({"class": ""}, "of no trusted package"),
        ({"class": ".x:Y"}, "of no trusted package"),
        ({"class": 3}, "no object of a configuration"),
        ({"learner": 1}, "no object of a configuration"),
        ({}, "no object of a configuration"),
    ],
)
def test_from_json_refuses(value, message):
    with pytest.raises(ValueError, match=message):
        from_json(value, OURS)


def test_fields_that_have_changed_are_refused():
    value = to_json(Parallel()) | {"gone": 1}
    with pytest.raises(ValueError, match="does not take the recorded fields"):
        from_json(value)


def test_a_field_that_is_new_takes_its_default():
    value = to_json(Parallel())
    del value["task_batch_size"]
    assert from_json(value) == Parallel()


def test_recorded_values_are_validated_again():
    value = to_json(Positive()) | {"value": -1.0}
    with pytest.raises(ValueError, match="must be positive, got -1"):
        from_json(value, OURS)


def test_reading_calls_no_recorded_function(tmp_path):
    target = tmp_path / "made"
    from_json({"partial": "os:mkdir", "path": str(target)}, ("os",))
    assert not target.exists()


def test_an_untrusted_module_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "unknown_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="name its package: jaxmeta evaluate --trust"):
        from_json({"function": "unknown_module:f"})


def test_differences_name_fields_by_their_path():
    ours = to_json(Optimizer(learning_rate=0.1, transform=optax.sgd))
    theirs = to_json(Optimizer(learning_rate=0.2))
    found = differences({"optimizer": ours}, {"optimizer": theirs})
    assert "optimizer.learning_rate: 0.1 here, 0.2 there" in found
    assert any(line.startswith("optimizer.transform.function:") for line in found)
    assert len(found) == 2


def test_differences_see_what_only_one_side_has():
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["b: None here, 2 there"]
    assert differences({"a": [1, 2]}, {"a": [1, 3]}) == ["a: [1, 2] here, [1, 3] there"]


def test_equal_configurations_have_no_difference_after_a_round_trip():
    config = to_json(Experiment(learner=smoke_learner(), source=smoke_source()))
    assert differences(config, json.loads(json.dumps(config))) == []


def test_a_hash_depends_on_values_and_not_on_order():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 1.5})
    assert len(config_hash({})) == 12
