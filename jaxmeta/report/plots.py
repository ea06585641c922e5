"""Pictures of runs, drawn without a display."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.lines import Line2D

PATHS = ("tab:red", "tab:orange", "tab:green", "tab:purple", "tab:brown", "black")
"""Colours that stand out from blue."""


def learning_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws every train and validation metric against the outer step.

    Args:
      path: the PNG to write; nothing is drawn where nothing was trained.
      rows: rows of `metrics.jsonl`.
    """
    drawn = ("train/", "validation/")
    names = {name for row in rows for name in row if name.startswith(drawn)}
    if not names:
        return
    metrics = sorted(
        {
            name.split("/")[1]
            for name in names
            if not name.endswith(("/skipped", "_low", "_high"))
        }
    ) or ["skipped"]  # when no step was finite
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(5 * len(metrics), 3.5), squeeze=False, dpi=120
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        for split in ("train", "validation"):
            name = f"{split}/{metric}"
            points = [(row["step"], row[name]) for row in rows if name in row]
            if not points:
                continue
            steps, values = np.array(points).T
            marker = "o" if len(points) == 1 else None
            (line,) = axis.plot(steps, values, marker=marker, label=split)
            band = [
                (row[f"{name}_low"], row[f"{name}_high"])
                for row in rows
                if f"{name}_low" in row
            ]
            if band:
                low, high = np.array(band).T
                axis.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
        axis.set(xlabel="step", ylabel=metric)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def table_curves(path: Path, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Draws the train metric of every run of a table: a panel a column, a line a run.

    Args:
      path: the PNG to write; nothing is drawn of runs that trained nothing.
      rows: rows of the table's `metrics.jsonl`.
      metric: without `train/`; drawn on a logarithmic axis if it is positive and varies
        more than tenfold.
    """
    name = f"train/{metric}"
    values = [row[name] for row in rows if name in row]
    if not values:
        return
    columns = list(dict.fromkeys(row["column"] for row in rows))
    methods = list(dict.fromkeys(row["row"] for row in rows))
    figure, axes = plt.subplots(
        1,
        len(columns),
        figsize=(5 * len(columns), 3.8),
        squeeze=False,
        dpi=120,
        layout="constrained",
    )
    # What is never negative and varies a lot; an accuracy does not.
    scale = "log" if min(values) > 0 and max(values) > 10 * min(values) else "linear"
    for axis, column in zip(axes[0], columns, strict=True):
        for i, method in enumerate(methods):
            runs: dict[int, list[tuple[int, float]]] = {}
            for row in rows:
                if (row["row"], row["column"]) == (method, column) and name in row:
                    runs.setdefault(row["seed"], []).append((row["step"], row[name]))
            for j, points in enumerate(runs.values()):
                label = None if j else method
                axis.plot(*np.array(points).T, color=f"C{i}", label=label, lw=1)
        axis.set(title=column, xlabel="outer step", ylabel=f"train {metric}")
        axis.set_yscale(scale)
        axis.spines[["top", "right"]].set_visible(False)
    by_method = {
        label: line
        for axis in axes[0]
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        by_method.values(),
        by_method.keys(),
        loc="outside lower center",
        ncols=len(by_method) if len(columns) > 1 else 2,
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)


def matrices(path: Path, rows: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Draws matrices in a grid on one colour scale, zero in the middle.

    Args:
      path: the PNG to write.
      rows: of the grid, each `{title: [output, input]}`, all of one length.
    """
    limit = max(float(np.abs(m).max()) for row in rows for m in row.values())
    columns = len(rows[0])
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(4.6 * columns, 4.4 * len(rows)),
        squeeze=False,
        dpi=120,
        layout="constrained",
    )
    image = None
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, matrix) in zip(line, row.items(), strict=True):
            image = axis.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(title=title, xlabel="input position")
        line[0].set_ylabel("output position")
    assert image is not None
    figure.colorbar(image, ax=axes, shrink=0.6)
    figure.savefig(path)
    plt.close(figure)


def contours(
    path: Path,
    axes: tuple[np.ndarray, np.ndarray],
    panels: Mapping[str, np.ndarray],
    paths: Mapping[str, np.ndarray],
    *,
    labels: tuple[str, str],
) -> None:
    """Draws functions of two variables side by side, with paths across all of them.

    Every shade covers as much of the plane as any other, so that a narrow valley and a
    wide plain both show.

    Args:
      path: the PNG to write.
      axes: the values of the two variables, `[x]` and `[y]`.
      panels: `{title: [y, x]}`, values on the grid.
      paths: `{label: [point, 2]}`; first and last point are marked.
      labels: names of the two variables.
    """
    figure, row = plt.subplots(
        1,
        len(panels),
        figsize=(4.1 * len(panels), 5.4),
        squeeze=False,
        sharey=True,
        dpi=120,
        layout="constrained",
    )
    shades = plt.get_cmap("Blues_r")(np.linspace(0.15, 1, 24))
    halo = [patheffects.Stroke(linewidth=4, foreground="white"), patheffects.Normal()]
    for axis, (title, values) in zip(row[0], panels.items(), strict=True):
        levels = np.quantile(values, np.linspace(0, 1, len(shades) + 1))
        image = axis.contourf(*axes, values, levels, colors=shades)
        bar = figure.colorbar(image, ax=axis, location="bottom", aspect=30)
        ticks = levels[::6].tolist()
        bar.set_ticks(ticks, labels=[f"{tick:.0f}" for tick in ticks])
        bar.ax.tick_params(labelsize=8)
        for colour, (label, points) in zip(itertools.cycle(PATHS), paths.items()):
            axis.plot(*points.T, color=colour, lw=2, path_effects=halo, label=label)
            mark = {"mec": "white", "ls": "none", "zorder": 3}
            axis.plot(*points[-1], "o", color=colour, ms=10, **mark)
        for points in paths.values():
            axis.plot(*points[0], "*", color="black", ms=16, **mark)
        axis.set(title=title, xlabel=labels[0])
    row[0][0].set_ylabel(labels[1])
    lines, names = row[0][0].get_legend_handles_labels()
    start, end = (
        Line2D([], [], marker=marker, color="black", ls="none", ms=size)
        for marker, size in (("*", 12), ("o", 8))
    )
    figure.legend(
        [*lines, start, end],
        [*names, "start", "end"],
        loc="outside lower center",
        ncols=len(names) + 2,
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)
