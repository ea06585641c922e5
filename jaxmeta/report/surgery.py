"""Pictures of what `surgery.step_diagnostics` measured over training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from jaxmeta.report.plots import plt

Rows = Sequence[Mapping[str, Any]]
"""Rows of `metrics.jsonl`."""

PANELS = {
    "conflicting": "pairs of tasks in conflict",
    "similarity": r"magnitude similarity $\Phi$",
    "curvature": "curvature along the step",
}
CONDITIONS = {
    "theorem_2": ("-", "all three"),
    "theorem_2a": ("--", "(a) conflict, unlike lengths"),
    "theorem_2b": (":", "(b) curvature"),
    "theorem_2c": ("-.", "(c) long step"),
}
NAMED_PAIRS = 30
"""With more pairs of tasks than this they are not named one by one."""


def has_diagnostics(rows: Rows) -> bool:
    """Whether any row holds what these pictures need, which is pairs of tasks.

    Example:
      >>> has_diagnostics([{"step": 1, "train/loss": 0.5}])
      False
    """
    return any(len(row.get("diagnostics/cosines", ())) > 1 for row in rows)


def tragic_triad(path: Path, runs: Mapping[str, Rows]) -> None:
    """Conflict, lengths and curvature against training, and theorem 2's conditions.

    The triad of Yu et al. 2020, section 2.3, and how often the conditions of their
    theorem 2 are met (an estimate, see `surgery.step_diagnostics`).

    Args:
      path: the PNG to write.
      runs: `{label: rows}`, a colour each.
    """
    figure, axes = plt.subplots(1, 4, figsize=(17, 4), dpi=120, layout="constrained")
    for colour, rows in zip(_colours(len(runs)), runs.values(), strict=True):
        for axis, name in zip(axes, PANELS, strict=False):
            axis.plot(*_curve(rows, name), color=colour, lw=1.5)
        for name, (style, _) in CONDITIONS.items():
            axes[3].plot(*_curve(rows, name), style, color=colour, lw=1.2)
    for axis, title in zip(axes, [*PANELS.values(), ""], strict=True):
        axis.set(title=title, xlabel="outer step")
        axis.spines[["top", "right"]].set_visible(False)
    curves = np.concatenate([_curve(rows, "curvature")[1] for rows in runs.values()])
    axes[2].set_yscale("log" if (curves > 0).all() else "linear")
    axes[3].set_title("pairs within theorem 2, estimated")
    for axis in (axes[0], axes[1], axes[3]):
        axis.set_ylim(-0.02, 1.02)
    lines = [Line2D([], [], color=colour) for colour in _colours(len(runs))]
    styles = [Line2D([], [], color="grey", ls=ls) for ls, _ in CONDITIONS.values()]
    figure.legend(
        [*lines, *styles],
        [
            *(label.replace("$", r"\$") for label in runs),
            *(words for _, words in CONDITIONS.values()),
        ],
        loc="outside lower center",
        ncols=len(runs) + len(CONDITIONS),
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)


def conflict_map(path: Path, rows: Rows) -> None:
    """Cosines between tasks: every pair over training, and the mean of every pair.

    Args:
      path: the PNG to write.
      rows: of one run.
    """
    rows = [row for row in rows if "diagnostics/cosines" in row]
    steps = [row["step"] for row in rows]
    cosines = np.array([row["diagnostics/cosines"] for row in rows], np.float64)
    first, second = np.triu_indices(cosines.shape[1], k=1)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), width_ratios=(2, 1), dpi=120, layout="constrained"
    )
    colours = {"cmap": "RdBu", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    extent = (0, steps[-1], len(first) - 0.5, -0.5)
    if len(first):
        pairs = cosines[:, first, second].T
        left.imshow(pairs, aspect="auto", extent=extent, **colours)
    left.set(title="every pair of tasks over training", xlabel="outer step")
    if len(first) <= NAMED_PAIRS:
        names = [f"{i}, {j}" for i, j in zip(first, second, strict=True)]
        left.set_yticks(range(len(first)), names, fontsize=7)
    else:
        left.set_yticks([])
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(cosines).sum(axis=0)
        mean = np.nansum(cosines, axis=0) / counted
    image = right.imshow(mean, **colours)
    right.set(
        title="mean over training",
        xlabel="task in the batch",
        ylabel="task in the batch",
    )
    figure.colorbar(image, ax=right, shrink=0.8, label="cosine of gradients")
    figure.savefig(path)
    plt.close(figure)


def _colours(count: int) -> list[str]:
    return [f"C{i}" for i in range(count)]


def _curve(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    name = f"diagnostics/{name}"
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values
