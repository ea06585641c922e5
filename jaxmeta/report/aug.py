"""The tables of Aug-Omniglot and Aug-MiniImagenet: rows, findings and pictures."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxmeta.core.fit import initial_state, restored_state
from jaxmeta.core.run import Run
from jaxmeta.core.table import Cell, Runs, Table
from jaxmeta.core.train import TrainState
from jaxmeta.meta.maml import FAST, Maml
from jaxmeta.networks.conv import Conv4
from jaxmeta.report.arm import accuracies, data_line
from jaxmeta.report.markdown import norm_text
from jaxmeta.report.symmetry import error_curves, orbit_grid
from jaxmeta.symmetry.augerino import Augerino
from jaxmeta.symmetry.benchmark import ROWS, Protocol
from jaxmeta.symmetry.equivariance import layer_errors
from jaxmeta.symmetry.liegg import derivatives, from_derivatives
from jaxmeta.symmetry.motions import GENERATORS
from jaxmeta.symmetry.sharing import SYMMETRY

Published = Mapping[str, Sequence[str]]
"""`{row: figures}` as printed, in percent, in the order of the columns."""

_NUM_IMAGES, _NUM_TASKS = 512, 5


def aug_table(
    title: str,
    protocol: Protocol,
    columns: Sequence[tuple[int, int]],
    *,
    seeds: int,
    published: Published,
    notes: Sequence[str],
    gain: float | None = None,
) -> Table:
    """A table of accuracies on augmented queries: a row a method.

    Args:
      title: of the table.
      protocol: of all rows.
      columns: ways and shots of each.
      seeds: of every row.
      published: figures to put beside, in the order of the columns.
      notes: what a reader must know.
      gain: by how many points MSR is to beat MAML in the first column.
    """
    cells = []
    for row in ROWS:
        figures = published.get(row, (None,) * len(columns))
        for (ways, shots), figure in zip(columns, figures, strict=False):
            cells.append(
                Cell(
                    row=row,
                    column=column_name(ways, shots),
                    experiment=lambda seed, row=row, ways=ways, shots=shots: (
                        protocol.experiment(row, ways=ways, shots=shots, seed=seed)
                    ),
                    protocol=_protocol_text(protocol, row),
                    published=figure,
                )
            )
    first = column_name(*columns[0])
    return Table(
        title=title,
        source="Zhou, Knowles, Finn, Meta-Learning Symmetries by Reparameterization, "
        "as tabulated in lecture slides",
        metric="accuracy",
        cells=tuple(cells),
        seeds=seeds,
        notes=(
            "Protocol: support sets as they are, query sets cropped (80 to 100 % of "
            "the area), flipped both ways and turned by up to 30 degrees, in training "
            "and in testing; the checkpoint with the best validation accuracy.",
            "MAML (Big) has as many channels as give it the number of parameters of "
            "MSR's v and U together. All inner rates are learned, one a tensor, as a "
            "softplus.",
            *notes,
        ),
        findings=lambda runs: findings(runs, first, gain),
        breakdown=lambda runs: noticed(runs, first),
        figures={
            "orbits.png": lambda path, runs: draw_orbits(path, runs, first),
            "equivariance.png": lambda path, runs: draw_errors(path, runs, first),
        },
    )


def column_name(ways: int, shots: int) -> str:
    """As in `5-way 1-shot`."""
    return f"{ways}-way {shots}-shot"


def _protocol_text(protocol: Protocol, row: str) -> str:
    steps = f"{protocol.steps:,} steps of {protocol.tasks_per_step} tasks"
    inner = f", {protocol.inner_steps} inner ({protocol.eval_inner_steps} in tests)"
    inner = "" if row == "ProtoNets" else inner
    norm = norm_text(protocol.norm_stats)
    more = "more than " if row == "MAML (Big)" else ""
    return f"{steps}, {more}{protocol.features} channels{inner}, {norm}"


def findings(runs: Runs, column: str, gain: float | None) -> list[str]:
    """MSR against MAML and against itself without U, over all seeds."""
    found = {
        row: np.mean([accuracies(directory).mean() for directory in directories])
        for (row, other), directories in runs.items()
        if other == column
    }
    said = data_line(runs)
    for row in ("MAML", "MSR, U = identity"):
        if {row, "MSR"} <= found.keys():
            points = 100 * (found["MSR"] - found[row])
            line = f"{column}: MSR is {points:+.1f} points from {row}."
            if row == "MAML" and gain is not None:
                verdict = "holds" if points >= gain else "misses"
                line += f" Asked were {gain:+.1f}: {verdict}."
            said.append(line)
    return said


def _variables(params: Any) -> dict[str, Any]:
    """Of a network, from those of `Maml`."""
    return {**params["slow"], FAST: {**params["slow"].get(FAST, {}), **params["fast"]}}


def _trained(
    runs: Runs, row: str, column: str
) -> tuple[Run, tuple[TrainState, TrainState]] | None:
    """The first run of a cell and its states before training and after, if it ran."""
    if (row, column) not in runs:
        return None
    run = Run.load(runs[row, column][0])
    return run, (initial_state(run.experiment), restored_state(run))


def noticed(runs: Runs, column: str) -> list[list[str]]:
    """The LieGG score of every generator and method: 1 is noticed like the others.

    With Augerino's ranges, as in `Averaged`.
    """
    lines = []
    for row in dict.fromkeys(row for row, _ in runs):
        found = _trained(runs, row, column)
        if found is None:
            continue
        run, (_, end) = found
        learner, source = run.experiment.learner, run.experiment.source
        tasks = source.sample(jax.random.key(6), jnp.arange(_NUM_TASKS), split="test")

        def of_task(task, learner=learner, end=end):
            adapted = learner.adapt(
                end.params, end.model_state, task.support, jax.random.key(0)
            )
            answer = functools.partial(learner.predict, end.params, adapted)
            return derivatives(answer, task.query.inputs)

        rows = jax.jit(jax.vmap(of_task))(tasks)
        scores = from_derivatives(rows).scores
        lines.append([row, *(f"{score:.2f}" for score in scores.values())])
        if isinstance(learner, Augerino):
            ranges = learner.ranges(end.params)
            lines.append([f"learned ranges of {row}", *(f"{r:.2f}" for r in ranges)])
    return [["LieGG score", *GENERATORS], *lines] if lines else []


def draw_orbits(path: Path, runs: Runs, column: str) -> None:
    """What U makes of one tap of a kernel, for every tap and layer of MSR."""
    found = _trained(runs, "MSR", column)
    if found is None:
        return
    symmetry = found[1][1].params["slow"][SYMMETRY]
    layers = [name for name in sorted(symmetry) if "C" in symmetry[name]]
    orbit_grid(path, {name: np.asarray(symmetry[name]["C"]) for name in layers})


def draw_errors(path: Path, runs: Runs, column: str) -> None:
    """The equivariance error of every layer before and after training."""
    curves = {}
    for row in ("MAML", "MSR"):
        found = _trained(runs, row, column)
        if found is None:
            continue
        run, moments = found
        learner, source = run.experiment.learner, run.experiment.source
        assert isinstance(learner, Maml)
        assert isinstance(learner.network, Conv4)
        count = -(-_NUM_IMAGES // len(source.example.query.inputs))
        tasks = source.sample(jax.random.key(5), jnp.arange(count), split="test")
        images = tasks.query.inputs.reshape(-1, *tasks.query.inputs.shape[2:])
        for when, state in zip(("before", "after"), moments, strict=True):
            curves[row, when] = layer_errors(
                learner.network, _variables(state.params), images[:_NUM_IMAGES]
            )
    error_curves(path, curves)
