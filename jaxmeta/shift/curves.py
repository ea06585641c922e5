"""How accuracy grows with the points that were seen: sets of many sizes, and streams.

What is measured is kept in the run directory, so that a picture is drawn again at once.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import config_hash, to_json
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.fit import measure, restored_state
from jaxmeta.core.loops import loops_well
from jaxmeta.core.run import Run, reading
from jaxmeta.data.groups import Groups, GroupSource
from jaxmeta.shift.learner import ShiftLearner
from jaxmeta.shift.streaming import newest_share
from jaxmeta.shift.unadapted import Unadapted

Mode: TypeAlias = Literal["episodic", "continual", "mixed"]
"""What a stream is made of.

episodic: points of one group.
continual: points of all groups, one group after the other.
mixed: the same points in any order.
"""

LEAST_TIME = 10
"""So many points of a group come in a row before the next, if there are as many."""


def accuracy_by_support(
    run: Run[Experiment], counts: Sequence[int], *, points: int
) -> np.ndarray:
    """Test accuracy of every group, by how many points are adapted to at a time.

    The same points are asked about with every count, in sets of so many; each set is
    answered together, by a fresh model. The last set of a group that has fewer points
    may be smaller. The numbers are kept in the run directory, in `support.npz`.

    Args:
      run: a finished run on a `GroupSource`.
      counts: points of a set, each >= 1.
      points: how many of every group are asked about, a multiple of every count.

    Returns:
      `[count, group]` in [0, 1].

    Raises:
      ValueError: for a count that does not divide `points`, or a run that is not
        finished.
      CheckpointError: if a file of the run cannot be read.
    """
    if any(count < 1 or points % count for count in counts):
        raise ValueError(
            f"points must be a multiple of every count, got {points} and "
            f"{tuple(counts)}."
        )

    def measured():
        with warnings.catch_warnings():
            # That a point alone is too few is what is measured.
            warnings.filterwarnings("once", "a set of", UserWarning)
            if isinstance(run.experiment.learner, Unadapted):  # it does not matter
                flat = _in_sets(run, max(counts), points)
                return np.broadcast_to(flat, (len(counts), *flat.shape))
            return np.stack([_in_sets(run, count, points) for count in counts])

    settings = {"counts": list(counts), "points": points}
    return _kept(run, "support.npz", settings, measured)


def _in_sets(run: Run[Experiment], count: int, points: int) -> np.ndarray:
    """`[group]` test accuracy when sets of `count` points are answered together."""
    source = run.experiment.source
    assert isinstance(source, GroupSource)
    source = dataclasses.replace(source, points_per_set=count)
    wanted = len(source.sizes("test")) * (points // count)
    same = Run(run.directory, dataclasses.replace(run.experiment, source=source))
    values = measure(same, num_tasks=min(wanted, source.num_slots("test")))
    return values["accuracy"]


def stream_accuracy(
    run: Run[Experiment], modes: Sequence[Mode], *, length: int, least_streams: int
) -> np.ndarray:
    """Accuracy of the t-th point of a stream, over many streams of test points.

    The streams of all modes run side by side. The numbers are kept in the run
    directory, in `streams.npz`.

    Args:
      run: a finished run on a `GroupSource` of a method that can be streamed.
      modes: what the streams are made of.
      length: points of a stream, >= 1.
      least_streams: so many at least of every mode, >= 1: as many of every group, and
        the same ones for every run on these data.

    Returns:
      `[mode, time]` in [0, 1].

    Raises:
      ValueError: for a number below 1, an unknown mode, a method that cannot be
        streamed, or a run that is not finished.
      CheckpointError: if a file of the run cannot be read.
    """
    source = run.experiment.source
    assert isinstance(source, GroupSource)
    num_groups = len(source.sizes("test"))
    streams = num_groups * -(-least_streams // num_groups)
    points = source.read()["test"]
    rows = [stream_rows(points, mode, length, streams) for mode in modes]

    def measured():
        correct = _over_streams(run, source, np.concatenate(rows))
        return correct.reshape(length, len(rows), streams).mean(2).T

    settings = {"modes": list(modes), "length": length, "streams": streams}
    return _kept(run, "streams.npz", settings, measured)


def stream_rows(points: Groups, mode: Mode, length: int, streams: int) -> np.ndarray:
    """Which rows of `points` come in which stream.

    Stream s is of group `s % num_groups`, or of several groups in a random order, each
    for an equal time: all of them, if that leaves each `LEAST_TIME` points. The next
    streams have the groups that come next in that order, so that over `num_groups` of
    them every group has every place once. The points of a group come in a random order,
    too; where they are fewer than are wanted they come again.

    Args:
      points: of one split.
      mode: what a stream is made of.
      length: points of a stream, >= 1.
      streams: how many, >= 1.

    Returns:
      `[stream, time]`.

    Raises:
      ValueError: for a number below 1 or an unknown mode.

    Example:
      >>> from jaxmeta.data.groups import group_points
      >>> ids = np.array([0, 0, 1, 1])
      >>> points = group_points(np.zeros((4, 2)), ids, ids)
      >>> ids[stream_rows(points, "episodic", 2, 3)].tolist()
      [[0, 0], [1, 1], [0, 0]]
    """
    if mode not in get_args(Mode):
        raise ValueError(
            f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}."
        )
    if min(length, streams) < 1:
        raise ValueError(
            f"length and streams must be >= 1, got {length} and {streams}."
        )
    num_groups = len(points.sizes)

    def one(stream: int) -> np.ndarray:
        rng = np.random.default_rng(stream)
        turn, place = divmod(stream, num_groups)
        # The same for all streams in which the groups change places.
        shared = np.random.default_rng([turn])
        order = np.roll(shared.permutation(num_groups), -place)
        order = order[: max(1, length // LEAST_TIME)]
        if mode == "episodic":
            order = [stream % num_groups]
        each = -(-length // len(order))
        members = (np.asarray(points.members[g][: points.sizes[g]]) for g in order)
        drawn = [np.resize(rng.permutation(rows), each) for rows in members]
        rows = np.concatenate(drawn)[:length]
        return rows[shared.permutation(length)] if mode == "mixed" else rows

    return np.stack([one(stream) for stream in range(streams)])


def _over_streams(
    run: Run[Experiment], source: GroupSource, rows: np.ndarray
) -> np.ndarray:
    """`[time, stream]`: what was answered rightly of `rows` `[stream, time]`."""
    learner, precision = run.experiment.learner, run.experiment.precision
    assert isinstance(learner, ShiftLearner)
    state, data = restored_state(run), source.load()["test"]

    def step(known, memory, at):
        (params, model_state, data), (seen, rows) = known, at
        observe = lambda memory, point: learner.observe(
            params, model_state, memory, point, seen, newest_share(seen)
        )
        with jax.default_matmul_precision(precision):
            points = source.prepare(data.inputs[rows])
            memory, logits = jax.vmap(observe)(memory, points)
        return memory, logits.argmax(-1) == data.targets[rows]

    known = (state.params, state.model_state, data)
    copies = lambda leaf: jnp.broadcast_to(leaf, (len(rows), *leaf.shape))
    memory = jax.tree.map(copies, learner.remember(*known[:2]))
    times = (jnp.arange(rows.shape[1]), jnp.asarray(rows.T))
    if loops_well(step, known, memory, (times[0][0], times[1][0])):
        scan = lambda known, *args: jax.lax.scan(partial(step, known), *args)[1]
        return np.asarray(jax.jit(scan)(known, memory, times))
    compiled, found = jax.jit(step), []
    for at in zip(*times, strict=True):
        memory, correct = compiled(known, memory, at)
        found.append(correct)
    return np.stack(jax.device_get(found))


def _kept(
    run: Run, name: str, settings: dict[str, Any], measured: Callable[[], np.ndarray]
) -> np.ndarray:
    """What was measured before with these settings, or what is measured now."""
    if not run.finished:
        raise ValueError(f"{run.directory} is not finished; train it to its end first.")
    path = run.directory / name
    settings = {**settings, "config": config_hash(to_json(run.experiment))}
    text = json.dumps(settings, sort_keys=True)
    if path.exists():
        with reading(path), np.load(path) as file:
            if str(file["settings"]) == text:
                return file["values"]
    values = measured()
    fresh = path.with_name(f"fresh_{name}")
    np.savez(fresh, settings=text, values=values)
    fresh.replace(path)
    return values
