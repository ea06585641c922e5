"""Meta-World's scripted policies in our environment and in the official one."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxmeta.core.table import Cell, Runs, Table
from jaxmeta.manipulation.official import VARIABLE, VERSION
from jaxmeta.manipulation.parity import ScriptedPlay
from jaxmeta.manipulation.physics import MODES, Physics
from jaxmeta.manipulation.suites import Suite

PAPER = "Yu et al. 2019 (arXiv 1910.10897); McLean et al. 2025, Meta-World+"
COST = "--quick: 5 min, full: 15 min on 2 CPU cores; the official package installed"

OFFICIAL, FAITHFUL, FAST = "official", *MODES
ROWS = {OFFICIAL: None, **MODES}
COLUMN = "MT50"
GOOD, LEAST, MEAN = 0.85, 0.5, 0.93
"""Shares of successes aimed at: of 46 tasks in 50, of every task, of all."""


class Aim(NamedTuple):
    """What the successes of all tasks together should reach."""

    name: str
    of: Callable[[np.ndarray], float]
    least: float
    form: str


def aims(num_tasks: int) -> tuple[Aim, ...]:
    """On this many tasks."""
    good, enough = lambda share: int((share >= GOOD).sum()), 46 * num_tasks / 50
    return (
        Aim(f"tasks at {GOOD:.2f} or more", good, math.ceil(enough), "d"),
        Aim("least of all tasks", np.min, LEAST, ".2f"),
        Aim("mean", np.mean, MEAN, ".3f"),
    )


def simulator(physics: Physics | None) -> str:
    """What moves things in a row."""
    if physics is None:
        return f"metaworld {VERSION} and its MuJoCo"
    return f"{physics.substeps} x {1e3 * physics.timestep:g} ms a step"


def measured(name: str, runs: Runs, num_tasks: int) -> dict[str, np.ndarray]:
    """A metric, `[task, goal]`, of the rows that were run."""
    found = {}
    for (row, _), (directory, *_) in runs.items():
        with np.load(directory / "test_tasks.npz") as values:
            found[row] = values[name].reshape(num_tasks, -1)
    return found


def text_of(success: np.ndarray, steps: np.ndarray) -> str:
    """The share of a task's episodes that succeed, and their mean steps until then."""
    solved = success > 0
    mean = f" in {steps[solved].mean():.0f}" if solved.any() else ""
    return f"{solved.mean():.2f}{mean}"


def breakdown(
    tasks: Sequence[str], claims: bool, runs: Runs
) -> Sequence[Sequence[str]]:
    """Every task a line, then what is aimed at, with a verdict on the faithful mode."""
    success = measured("success", runs, len(tasks))
    steps = measured("steps", runs, len(tasks))
    lines = [
        [name, *(text_of(success[row][i], steps[row][i]) for row in success)]
        for i, name in enumerate(tasks)
    ]
    for aim in aims(len(tasks)):
        values = {row: aim.of(played.mean(axis=1)) for row, played in success.items()}
        texts = {row: f"{value:{aim.form}}" for row, value in values.items()}
        if claims and FAITHFUL in values:
            holds = values[FAITHFUL] >= aim.least
            texts[FAITHFUL] += " holds" if holds else " misses"
        aimed_at = f" (aim: {aim.least:{aim.form}})" if claims else ""
        lines.append([f"{aim.name}{aimed_at}", *texts.values()])
    return [["task: success, steps to it", *success], *lines]


def findings(tasks: Sequence[str], runs: Runs) -> list[str]:
    """Where few episodes succeed, and what the fast physics costs."""
    success = measured("success", runs, len(tasks))
    shares = {row: played.mean(axis=1) for row, played in success.items()}
    named = lambda which: ", ".join(np.array(tasks)[which]) or "none"
    lines = [
        f"Below {GOOD:.2f}, {row}: {named(share < GOOD)}."
        for row, share in shares.items()
    ]
    if FAITHFUL in shares and FAST in shares:
        # Shares of goals: .8 - .7 is more than .1 in floating point.
        lost = np.round(shares[FAITHFUL] - shares[FAST], 6)
        lines.append(
            f"The fast physics costs {lost.mean():.3f} of the mean; it loses more than "
            f".10 on {named(lost > 0.1)}, and gains as much on {named(lost < -0.1)}."
        )
    return lines


def make_table(tasks: Sequence[str], num_goals: int, *, claims: bool) -> Table:
    """The table on some tasks and goals; `claims` says whether aims are judged."""
    tasks = tuple(tasks)
    play = lambda physics, seed: ScriptedPlay(
        physics=physics, tasks=tasks, num_goals=num_goals, seed=seed
    )
    judged = {"accept": lambda source: (MEAN, 1.0), "claim": f"at least {MEAN:.2f}"}
    too_few = "" if claims else f" {num_goals} are too few to judge aims by."
    return Table(
        title="Meta-World, the official scripted policies: share of episodes that "
        "succeed at some step",
        source="none; the official package is measured by the same command",
        metric="success",
        cells=tuple(
            Cell(
                row=row,
                column=COLUMN,
                experiment=functools.partial(play, physics),
                protocol=f"{simulator(physics)}, {num_goals} goals a task",
                **(judged if claims and row == FAITHFUL else {}),
            )
            for row, physics in ROWS.items()
        ),
        seeds=1,
        measured_on=f"episodes, {num_goals} of each of {len(tasks)} tasks",
        notes=(
            f"The policies are the official ones, called from the package's own "
            f"environment (${VARIABLE}) with what is seen here, and never tuned on "
            f"ours. Every task plays the first {num_goals} goals of MT50 (seed 42), "
            f"the same in every row; another seed plays the next ones.{too_few}",
            "Steps are the mean of the episodes that succeed.",
        ),
        findings=functools.partial(findings, tasks),
        breakdown=functools.partial(breakdown, tasks, claims),
    )


def get_table(quick: bool) -> Table:
    """The table; `quick` plays 3 goals of every task instead of 20."""
    tasks = Suite(name="MT50").tasks
    return make_table(tasks, 3 if quick else 20, claims=not quick)
