"""`jaxmeta bench scaling`, on small networks; and that bytes do not grow with tasks."""

import functools
import json
import pkgutil

import jax
import jax.numpy as jnp
import pytest

from jaxmeta import Maml, mean_over_tasks, scaling, surgery
from jaxmeta.cli import main
from jaxmeta.core.chips import CHIPS
from jaxmeta.core.task import Examples, Task
from jaxmeta.networks.mlp import MLP

TINY = """
import jax
from jaxmeta import mean_over_tasks
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.scaling import Program

def make():
    example = jax.eval_shape(lambda: smoke_source().example)
    return Program(smoke_learner(), mean_over_tasks(), example, 2)
"""


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """One small program in a module that the processes find."""
    (tmp_path / "tiny_program.py").write_text(TINY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(scaling, "PROGRAMS", {"tiny": "tiny_program:make"})


def test_the_command(tiny, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    out, plot = tmp_path / "scaling.json", tmp_path / "scaling.png"
    main(["bench", "scaling", "--devices", "2", "--out", str(out), "--plot", str(plot)])
    shown = capsys.readouterr()
    assert "Predicted, not measured" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "compiling tiny for 2 devices\n" in shown.err
    assert plot.stat().st_size > 1000
    one, two = json.loads(out.read_text())["rows"]
    assert (one["devices"], two["devices"], two["tasks_per_device"]) == (1, 2, 2)
    assert one["exchanges"] == []
    assert set(one["efficiency"].values()) == {1.0}
    assert one["flops"] == pytest.approx(two["flops"], rel=0.2)
    assert {each["group_size"] for each in two["exchanges"]} == {2}
    # Four numbers, sum and count of the loss, and how many losses are not finite.
    assert len(two["exchanges"]) == 1
    assert two["wire_bytes"] == 4 * (4 + 2 + 1)
    for chip, efficiency in two["efficiency"].items():
        assert efficiency == one["seconds"][chip] / two["seconds"][chip] < 1
    assert set(two["efficiency"]) == set(CHIPS)


def test_a_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(scaling, "PROGRAMS", {"none": "jaxmeta.scaling:nothing"})
    with pytest.raises(RuntimeError, match=r"for 1 devices failed: Attr.*nothing"):
        scaling.measure()


@pytest.fixture(scope="module")
def costs():
    """`costs(aggregator, tasks)`: a step of MAML on four devices."""
    learner = Maml(network=MLP(features=(16, 4)))
    row = lambda n: jax.ShapeDtypeStruct((n, 4), jnp.float32)
    examples = Examples(row(3), row(3))
    task = Task(examples, examples, jax.ShapeDtypeStruct((), jnp.int32))

    @functools.cache
    def cost(aggregator, num_tasks):
        program = scaling.Program(learner, aggregator(), task, 1)
        return scaling.step_cost(program, num_tasks)

    return cost


def test_bytes_do_not_grow_with_tasks_when_weights_are_constant(costs):
    four, eight, sixteen = (costs(mean_over_tasks, n) for n in (4, 8, 16))
    assert four.exchanges == eight.exchanges == sixteen.exchanges
    assert {each.kind for each in four.exchanges} == {"all-reduce"}
    assert four.flops < eight.flops < sixteen.flops
    # 148 weights and biases, 4 rates of theirs, sum and count of the loss, and how many
    # losses are not finite, all at once.
    (exchange,) = four.exchanges
    assert exchange.num_bytes == 4 * (148 + 4 + 2 + 1)


def test_weights_from_losses_add_eight_bytes_a_task(costs):
    """Every device hears the loss and the id of every task."""
    plain = costs(mean_over_tasks, 4).wire_bytes
    rule = lambda: surgery.aggregate_tasks(surgery.GroupDRO(num_tasks=3))
    for num_tasks in (4, 16):
        cost = costs(rule, num_tasks)
        gathered = [each for each in cost.exchanges if each.kind == "all-gather"]
        assert sum(each.num_bytes for each in gathered) == 8 * num_tasks
        assert cost.wire_bytes == plain + 3 / 4 * 8 * num_tasks


def test_bytes_of_pcgrad_grow_with_tasks(costs):
    four, sixteen = (costs(surgery.pcgrad, n) for n in (4, 16))
    turned = lambda cost: sum(
        each.num_bytes for each in cost.exchanges if each.kind == "all-to-all"
    )
    # Most of each task's gradient changes hands: as much again for every task.
    assert turned(sixteen) == 4 * turned(four) > 0
    assert sixteen.wire_bytes > four.wire_bytes


MISTAKES = {
    "no device": (["--devices", "0"], "devices must be from 1 to 1024, got 0"),
    "too many": (["--devices", "1025"], "devices must be from 1 to 1024, got 1025"),
    "no utilisation": (
        ["--utilisation", "0"],
        "utilisation must be in (0, 1], got 0.0",
    ),
    "no number": (["--devices", "many"], "many"),
    "of another": (["--num-envs", "3"], "--num-envs is not of `jaxmeta bench scaling`"),
    "no PNG": (["--plot", "x.jpg"], "--plot x.jpg must end in .png"),
    "no directory": (["--plot", "nowhere/x.png"], "--plot nowhere/x.png must be"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    argv, named = MISTAKES[name]
    with pytest.raises(SystemExit) as stop:
        main(["bench", "scaling", *argv])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert named in shown.err


@pytest.mark.slow  # traces networks of real size
@pytest.mark.parametrize("name", scaling.PROGRAMS)
def test_programs_have_the_shapes_of_their_learner(name, untyped):
    program = pkgutil.resolve_name(scaling.PROGRAMS[name])()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), program.example)

    def loss(key):
        params, model_state = program.learner.init(key, zeros)
        return program.learner.loss(params, model_state, zeros, key)[0]

    assert jax.eval_shape(loss, jax.random.key(0)).shape == ()
