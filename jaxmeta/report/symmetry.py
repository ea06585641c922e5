"""Pictures of learned symmetries, drawn without a display."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)

import matplotlib.pyplot as plt
import numpy as np


def orbit_grid(path: Path, layers: Mapping[str, np.ndarray]) -> None:
    """Draws what a symmetry matrix over taps makes of each tap: a line a layer.

    Args:
      path: the PNG to write; nothing is drawn of no layer.
      layers: `{name: C [taps, taps]}` with a square number of taps. The t-th picture of
        a line is column t of C, the kernel that a filter with 1 at tap t becomes.
    """
    if not layers:
        return
    taps = len(next(iter(layers.values())))
    side = math.isqrt(taps)
    figure, axes = plt.subplots(
        len(layers),
        taps,
        figsize=(1.0 * taps + 1, 1.15 * len(layers) + 0.3),
        squeeze=False,
        dpi=120,
        layout="constrained",
    )
    image = None
    for line, (name, matrix) in zip(axes, layers.items(), strict=True):
        limit = np.abs(matrix).max()
        for tap, axis in enumerate(line):
            kernel = matrix[:, tap].reshape(side, side) / limit
            image = axis.imshow(kernel, cmap="RdBu", vmin=-1, vmax=1)
            axis.plot(tap % side, tap // side, "k.", ms=3)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    assert image is not None
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the layer's largest")
    figure.savefig(path)
    plt.close(figure)


def error_curves(
    path: Path, curves: Mapping[tuple[str, str], Mapping[str, Sequence[float]]]
) -> None:
    """Draws the equivariance error of every layer: a panel a motion.

    Args:
      path: the PNG to write; nothing is drawn of no curve.
      curves: `{(method, "before" or "after"): {motion: error [layer]}}`.
    """
    if not curves:
        return
    motions = list(next(iter(curves.values())))
    methods = list(dict.fromkeys(method for method, _ in curves))
    figure, axes = plt.subplots(
        1,
        len(motions),
        figsize=(3.2 * len(motions) + 1.5, 3.4),
        squeeze=False,
        sharey=True,
        dpi=120,
        layout="constrained",
    )
    for axis, motion in zip(axes[0], motions, strict=True):
        for (method, when), errors in curves.items():
            axis.plot(
                range(1, len(errors[motion]) + 1),
                errors[motion],
                "o-" if when == "after" else "o--",
                color=f"C{methods.index(method)}",
                label=f"{method}, {when} training",
                ms=4,
            )
        axis.set(title=motion, xlabel="layer", xticks=range(1, len(errors[motion]) + 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("equivariance error")
    axes[0, 0].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path)
    plt.close(figure)
