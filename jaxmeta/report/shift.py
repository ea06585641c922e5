"""Pictures of methods that adapt to groups: the tail is what they are about."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxmeta.report.plots import plt


def sorted_groups(path: Path, rows: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Draws the accuracy of every group, from the worst to the best; a line a method.

    Each seed is sorted by itself and then they are averaged, so that a line begins at
    the mean worst-group accuracy.

    Args:
      path: the PNG to write; nothing is drawn of no row.
      rows: `{method: [accuracies [group], one a seed]}`.
    """
    if not rows:
        return
    figure, (axis,) = _panels()
    for row, colour in _colours(rows).items():
        curve = np.sort(np.stack(rows[row]), axis=1).mean(axis=0)
        ranks = np.arange(1, len(curve) + 1)
        axis.plot(ranks, curve, ".-", color=colour, lw=1.5)
    axis.set(xlabel="group, from the worst to the best", ylabel="test accuracy")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, path, _colours(rows), {})


def support_curve(
    path: Path, rows: Mapping[str, tuple[Sequence[int], np.ndarray]]
) -> None:
    """Draws accuracy against the number of points that are adapted to.

    Args:
      path: the PNG to write; nothing is drawn of no row.
      rows: `{method: (counts, accuracies [count, group])}`, as `accuracy_by_support`
        measures them. The mean over groups is solid, the worst group dashed.
    """
    if not rows:
        return
    figure, (axis,) = _panels()
    for row, colour in _colours(rows).items():
        counts, accuracies = rows[row]
        axis.plot(counts, accuracies.mean(axis=1), ".-", color=colour, lw=1.5)
        axis.plot(counts, accuracies.min(axis=1), ".--", color=colour, lw=1.2)
    axis.set(xlabel="points adapted to", ylabel="test accuracy", xscale="log")
    ticks = sorted({count for counts, _ in rows.values() for count in counts})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    styles = {"mean over groups": "-", "worst group": "--"}
    _finish(figure, path, _colours(rows), styles)


def streaming_curve(path: Path, rows: Mapping[tuple[str, str], np.ndarray]) -> None:
    """Draws the accuracy of the t-th point of a stream: a panel a mode.

    Args:
      path: the PNG to write; nothing is drawn of no row.
      rows: `{(method, mode): accuracies [time]}`, as `stream_accuracy` measures them.
        A point shows the mean over a tenth of the stream around it.
    """
    if not rows:
        return
    colours = _colours(dict.fromkeys(row for row, _ in rows))
    modes = list(dict.fromkeys(mode for _, mode in rows))
    figure, axes = _panels(len(modes))
    for axis, mode in zip(axes, modes, strict=True):
        for row in (row for row, other in rows if other == mode):
            accuracies = rows[row, mode]
            curve = running_mean(accuracies, max(1, len(accuracies) // 10))
            times = np.arange(1, len(curve) + 1)
            axis.plot(times, curve, color=colours[row], lw=1.5)
        axis.set(title=mode, xlabel="points of the stream so far")
    axes[0].set_ylabel("test accuracy")
    _finish(figure, path, colours, {})


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the `window` values around each, fewer at the ends.

    Args:
      values: `[time]`.
      window: >= 1; an even one counts as the next odd one.

    Returns:
      `[time]`.

    Example:
      >>> running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
      [1.5, 3.0, 3.0, 3.0]
    """
    half, times = window // 2, np.arange(len(values))
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    first, last = np.maximum(times - half, 0), np.minimum(times + half + 1, len(values))
    return (totals[last] - totals[first]) / (last - first)


def corruption_map(
    path: Path, names: Sequence[str], rows: Mapping[str, np.ndarray]
) -> None:
    """Draws accuracy by corruption and severity, a map a method, all on one scale.

    Args:
      path: the PNG to write; nothing is drawn of no row.
      names: `corruption severity` of every group, as in `fog 3`.
      rows: `{method: accuracies [group]}`. The numbers in the cells are percent; cells
        without a group stay empty.

    Raises:
      ValueError: for a name that does not end in a number.
    """
    if not rows:
        return
    where = [name.rsplit(" ", 1) for name in names]
    kinds = list(dict.fromkeys(kind for kind, _ in where))
    levels = sorted({int(level) for _, level in where})
    cells = [(kinds.index(kind), levels.index(int(level))) for kind, level in where]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    width, height = 0.3 + 0.42 * len(levels), 0.9 + 0.3 * len(kinds)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(1.5 + width * columns, height * lines),
        squeeze=False,
        sharey=True,
        dpi=120,
        layout="constrained",
    )
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    together = np.stack(list(rows.values()))
    colours = ScalarMappable(Normalize(together.min(), together.max()), "viridis")
    for i, (row, accuracies) in enumerate(rows.items()):
        axis = axes.flat[i]
        grid = np.full((len(kinds), len(levels)), np.nan)
        grid[tuple(np.transpose(cells))] = accuracies
        axis.imshow(grid, cmap=colours.cmap, norm=colours.norm, aspect="auto")
        for cell, accuracy in zip(cells, accuracies, strict=True):
            _write_percent(axis, cell, accuracy, colours.to_rgba(accuracy))
        axis.set_title(row, fontsize=10)
        axis.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
        # Only where no other map is below.
        lowest = i + columns >= len(rows)
        axis.set_xticks(range(len(levels)), levels if lowest else [""] * len(levels))
        axis.set_xlabel("severity" if lowest else "")
    figure.colorbar(colours, ax=axes, aspect=20 * lines, label="test accuracy")
    figure.savefig(path)
    plt.close(figure)


def _write_percent(
    axis: Axes, cell: tuple[int, int], accuracy: float, colour: Any
) -> None:
    """Writes an accuracy into its cell, in black where the colour is light."""
    red, green, blue, _ = colour
    light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
    shade = "black" if light else "white"
    (row, column), text = cell, f"{100 * accuracy:.0f}"
    axis.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)


def _colours(names: Iterable[str]) -> dict[str, Any]:
    """A colour for every name."""
    names = list(names)
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    return {name: colours(i % colours.N) for i, name in enumerate(names)}


def _panels(count: int = 1) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(
        1,
        count,
        figsize=(8 if count == 1 else 2 + 3.6 * count, 4.2),
        squeeze=False,
        sharey=True,
        dpi=120,
        layout="constrained",
    )
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _finish(
    figure: Figure, path: Path, colours: Mapping[str, Any], styles: Mapping[Any, str]
) -> None:
    """Adds what colours and styles mean, beside the data, and writes the file."""
    lines = [Line2D([], [], color=colour) for colour in colours.values()]
    lines += [Line2D([], [], color="grey", ls=style) for style in styles.values()]
    names = [*colours, *styles]
    figure.legend(lines, names, loc="outside right center", frameon=False)
    figure.savefig(path)
    plt.close(figure)
