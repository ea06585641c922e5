"""Support curves and streams of a run, against the methods called by hand."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.checkpoint import CheckpointError
from jaxmeta.core.experiment import Evaluation, Experiment
from jaxmeta.core.fit import complete, initial_state, restored_state
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.writers import JsonlWriter
from jaxmeta.data.groups import ArrayGroups, GroupSource, group_points
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.shift import curves
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.curves import accuracy_by_support, stream_accuracy, stream_rows
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.streaming import stream

MODES = ("episodic", "continual", "mixed")
NETWORK = ConvNet(num_classes=3, width=2, large=False)
LEARNERS = {
    "ERM": Erm(network=NETWORK),
    "ARM-BN": ArmBn(network=NETWORK),
    "ARM-CML": ArmCml(network=NETWORK, context=ContextNet(channels=1, width=2)),
    "ARM-LL": ArmLl(network=NETWORK),
}

streamed = jax.jit(stream, static_argnums=0)


@pytest.fixture(autouse=True)
def short_streams(monkeypatch):
    monkeypatch.setattr(curves, "LEAST_TIME", 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tinted(GroupSource):
    """Noise with a brightness a group; test groups have 13, 8 and 13 points."""

    @property
    def num_classes(self):
        return 3

    def groups(self):
        rng = np.random.default_rng(0)
        ids = np.repeat(np.arange(7), [8, 8, 8, 8, 13, 8, 13])
        targets = rng.integers(0, 3, len(ids))
        bright = (
            rng.normal(size=(len(ids), 16, 16, 1))
            + (ids + targets)[:, None, None, None]
        )
        return ArrayGroups(
            inputs=bright.astype(np.float32),
            targets=targets,
            group_ids=ids,
            held_out=((3,), (4, 5, 6)),
        ).groups()


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """`run_of(method)`: a short training, done once."""
    runs = {}

    def trained(name):
        if name not in runs:
            experiment = Experiment(
                learner=LEARNERS[name],
                source=Tinted(points_per_set=4),
                parallel=Parallel(backend="vmap"),
                evaluation=Evaluation(
                    every=2,
                    checkpoint="best",
                    metric="accuracy",
                    mode="max",
                    num_validation_tasks=2,
                    num_test_tasks=12,
                    tasks_per_batch=5,
                ),
                tasks_per_step=2,
                steps=2,
                log_every=2,
            )
            run = Run.open(tmp_path_factory.mktemp(name) / "run", experiment)
            writer = JsonlWriter(run.metrics_path)
            complete(run, writer, Progress(2, quiet=True))
            writer.close()
            runs[name] = run
        return runs[name]

    return trained


def not_again(*args, **kwargs):
    raise AssertionError("measured again")


@pytest.mark.parametrize(
    "name", ["ERM", "ARM-BN", pytest.param("ARM-LL", marks=pytest.mark.slow)]
)
def test_support_curve_answers_sets_of_every_size(name, run_of):
    run, counts, points = run_of(name), (2, 3, 12), 12
    found = accuracy_by_support(run, counts, points=points)
    learner, state = run.experiment.learner, restored_state(run)
    data = run.experiment.source.read()["test"]
    answer = jax.jit(
        lambda inputs: learner.answer(
            state.params, state.model_state, inputs, jnp.ones(len(inputs), bool)
        )
    )
    for i, count in enumerate(counts):
        for group, size in enumerate(data.sizes):
            rows = data.members[group][: min(points, size)]
            sets = np.split(rows, range(count, len(rows), count))
            right = [
                np.asarray(answer(data.inputs[part]).argmax(-1) == data.targets[part])
                for part in sets
            ]
            expected = np.concatenate(right).mean()
            # Numbers of points out of at most 13, and no logits that nearly tie.
            assert found[i, group] == pytest.approx(expected, abs=1e-6)
    assert found.shape == (3, 3)


def test_a_point_alone_is_reported_once_and_is_no_error(run_of):
    with warnings.catch_warnings(record=True) as caught:
        accuracy_by_support(run_of("ARM-BN"), (1, 4), points=4)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1
    assert "a set of 1 point is too small" in messages[0]


def test_what_was_measured_is_kept_with_its_settings(run_of, monkeypatch):
    run = run_of("ARM-BN")
    first = accuracy_by_support(run, (2, 4), points=4)
    with monkeypatch.context() as patch:
        patch.setattr(curves, "measure", not_again)
        again = accuracy_by_support(run, (2, 4), points=4)
        for counts, points in (((4,), 4), ((2, 4), 8)):
            with pytest.raises(AssertionError, match="measured again"):
                accuracy_by_support(run, counts, points=points)
        other = dataclasses.replace(
            run.experiment, learner=ArmBn(network=NETWORK, min_support=5)
        )
        with pytest.raises(AssertionError, match="measured again"):
            accuracy_by_support(Run(run.directory, other), (2, 4), points=4)
    np.testing.assert_array_equal(first, again)
    assert sorted(path.name for path in run.directory.glob("*support*")) == [
        "support.npz"
    ]


def test_counts_must_divide_the_points(run_of):
    for counts in ((1, 3), (0, 4), (8,)):
        with pytest.raises(
            ValueError, match="must be a multiple of every count, got 4"
        ):
            accuracy_by_support(run_of("ARM-BN"), counts, points=4)


def test_a_run_that_is_not_finished_is_refused(tmp_path, run_of):
    run = Run.open(tmp_path / "run", run_of("ARM-BN").experiment)
    with pytest.raises(ValueError, match="is not finished; train it to its end"):
        accuracy_by_support(run, (4,), points=4)
    with pytest.raises(ValueError, match="is not finished; train it to its end"):
        stream_accuracy(run, ["mixed"], length=2, least_streams=2)


def test_a_damaged_file_is_named(run_of):
    run = run_of("ARM-BN")
    path = run.directory / "streams.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"streams\.npz is damaged"):
        stream_accuracy(run, ["mixed"], length=2, least_streams=2)
    path.unlink()


@pytest.mark.parametrize("name", ["ARM-BN", "ARM-CML"])
def test_a_stream_is_what_the_method_says_of_it(name, run_of):
    run, length, streams = run_of(name), 9, 4
    found = stream_accuracy(run, MODES, length=length, least_streams=streams)
    assert found.shape == (len(MODES), length)
    learner, state = run.experiment.learner, restored_state(run)
    data = run.experiment.source.read()["test"]
    for mode, accuracies in zip(MODES, found, strict=True):
        rows = stream_rows(data, mode, length, 3 * -(-streams // 3))  # of all 3 groups
        right = [
            np.asarray(
                streamed(
                    learner,
                    state.params,
                    state.model_state,
                    jnp.asarray(data.inputs[row]),
                ).argmax(-1)
            )
            == data.targets[row]
            for row in rows
        ]
        np.testing.assert_allclose(accuracies, np.mean(right, axis=0), atol=1e-6)


def test_a_compiled_loop_gives_the_same_stream(run_of, monkeypatch):
    run = run_of("ARM-BN")
    rows = stream_rows(run.experiment.source.read()["test"], "mixed", 6, 3)
    found = []
    for loops in (True, False):
        monkeypatch.setattr(curves, "loops_well", lambda *args, loops=loops: loops)
        found.append(curves._over_streams(run, run.experiment.source, rows))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_streams_are_kept_by_mode_and_settings(run_of, monkeypatch):
    run = run_of("ARM-BN")
    first = stream_accuracy(run, ["episodic"], length=3, least_streams=2)
    monkeypatch.setattr(curves, "_over_streams", not_again)
    again = stream_accuracy(run, ["episodic"], length=3, least_streams=2)
    np.testing.assert_array_equal(first, again)
    with pytest.raises(AssertionError, match="measured again"):
        stream_accuracy(run, ["episodic"], length=3, least_streams=4)
    with pytest.raises(AssertionError, match="measured again"):
        stream_accuracy(run, ["mixed"], length=3, least_streams=2)
    assert (run.directory / "streams.npz").exists()


def test_what_cannot_be_streamed_says_so(run_of, monkeypatch):
    run = run_of("ARM-BN")
    other = dataclasses.replace(run.experiment, learner=LEARNERS["ARM-LL"])
    untrained = lambda run: initial_state(run.experiment)
    monkeypatch.setattr(curves, "restored_state", untrained)
    with pytest.raises(ValueError, match="cannot be streamed"):
        stream_accuracy(Run(run.directory, other), ["mixed"], length=2, least_streams=2)


IDS = np.repeat([0, 1, 2], [5, 2, 6])
POINTS = group_points(np.zeros((13, 1)), IDS, IDS)


def test_episodic_streams_are_of_one_group_each():
    rows = stream_rows(POINTS, "episodic", 4, 6)
    assert rows.shape == (6, 4)
    assert IDS[rows].tolist() == [[i % 3] * 4 for i in range(6)]
    # No point twice, but of the group that has two.
    assert [len(set(row)) for row in rows.tolist()] == [4, 2, 4] * 2
    assert rows[0].tolist() != rows[3].tolist()


def test_continual_streams_go_from_group_to_group():
    rows = stream_rows(POINTS, "continual", 8, 20)
    orders = {tuple(dict.fromkeys(IDS[row].tolist())) for row in rows}
    for row in IDS[rows]:
        assert np.count_nonzero(np.diff(row)) == 2
        assert sorted(np.bincount(row)) == [2, 3, 3]
    assert len(orders) > 1


@pytest.mark.parametrize("mode", ["continual", "mixed"])
def test_at_every_moment_there_are_as_many_streams_of_every_group(mode):
    groups = IDS[stream_rows(POINTS, mode, 8, 6)]
    for at_once in groups.T:
        assert np.bincount(at_once).tolist() == [2, 2, 2]


def test_mixed_streams_have_the_same_points_in_another_order():
    continual, mixed = (stream_rows(POINTS, m, 9, 5) for m in ("continual", "mixed"))
    np.testing.assert_array_equal(np.sort(mixed), np.sort(continual))
    assert (mixed != continual).any()


def test_every_group_has_its_least_time(monkeypatch):
    monkeypatch.setattr(curves, "LEAST_TIME", 3)
    for row in IDS[stream_rows(POINTS, "continual", 8, 20)]:
        assert sorted(np.bincount(row, minlength=3)) == [0, 4, 4]


def test_a_stream_shorter_than_the_groups_are_many():
    rows = stream_rows(POINTS, "continual", 2, 3)
    assert all(len(set(row)) == 2 for row in IDS[rows].tolist())


def test_streams_do_not_depend_on_how_many_there_are():
    few, many = (stream_rows(POINTS, "mixed", 5, count) for count in (2, 4))
    np.testing.assert_array_equal(few, many[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("online", 2, 2),
            "mode must be one of episodic, continual, mixed, got 'online'",
        ),
        (("mixed", 0, 2), "must be >= 1, got 0 and 2"),
        (("mixed", 2, 0), "must be >= 1, got 2 and 0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_streams_that_cannot_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        stream_rows(POINTS, *arguments)
