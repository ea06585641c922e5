"""A picture of `jaxmeta bench scaling`."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmeta.report.plots import plt


def draw_efficiency(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the predicted efficiency against devices: a panel a chip, a line a learner.

    Args:
      path: the PNG to write.
      rows: those of `scaling.measure`.
    """
    chips, learners = (
        list(rows[0]["efficiency"]),
        dict.fromkeys(row["learner"] for row in rows),
    )
    figure, axes = plt.subplots(
        1,
        len(chips),
        figsize=(2.7 * len(chips), 3.6),
        squeeze=False,
        sharey=True,
        dpi=120,
        layout="constrained",
    )
    for axis, chip in zip(axes[0], chips, strict=True):
        # By turns, so that a line shows where another lies on it.
        for learner, style in zip(learners, itertools.cycle(("-", "--"))):
            points = [
                (row["devices"], row["efficiency"][chip])
                for row in rows
                if row["learner"] == learner
            ]
            axis.plot(
                *zip(*points, strict=True), style, marker="o", ms=4, label=learner
            )
        counts = sorted({row["devices"] for row in rows})
        axis.set(title=chip, xlabel="devices", xscale="log", yscale="log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("predicted efficiency")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(learners),
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)
