"""Turned digits without any file: ARM and what it is compared with, in minutes."""

from jaxmeta.core.table import Table
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.report.arm import arm_table
from jaxmeta.shift.benchmark import Protocol

PAPER = "Zhang et al. 2021 (arXiv 2007.02931), the methods; scikit-learn's digits"
COST = "--quick --jobs 2: 3 min a seed on 2 CPU cores; full: 3 times the steps; no data"

ROWS = ("ERM", "UW", "DRNN", "ARM-CML", "ARM-BN", "ARM-LL", "BN adaptation")


def get_table(quick: bool) -> Table:
    """The table; `quick` has one seed and fewer steps."""
    return arm_table(
        "Turned digits (scikit-learn): test accuracy",
        Protocol(
            source=RotatedDigits(points_per_set=32, image_size=20),
            width=8,
            context_channels=4,
            learning_rate=3e-3,
            steps=160 if quick else 480,
            evaluations=4,
            sets_per_batch=14,
        ),
        ROWS,
        seeds=1 if quick else 3,
        notes=(
            "14 angles, as unequal as those of Rotated MNIST: 809 training images at "
            "0, 10 and 20 degrees, 11 at 120 and 130. Forms of other people validate "
            "and test.",
        ),
    )
