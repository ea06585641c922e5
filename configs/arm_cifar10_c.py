"""CIFAR-10-C: 22 new corruptions and severities; ARM against ERM, DRO and others."""

from jaxmeta.core.table import Table
from jaxmeta.data.cifar10_c import Cifar10C
from jaxmeta.report.arm import ADAPTERS, ARM, MIXED, arm_table
from jaxmeta.shift.benchmark import Protocol, decayed_sgd

PAPER = "Zhang et al. 2021 (arXiv 2007.02931), section 5; authors' settings"
COST = "--quick: 20 min a seed on 2 CPU cores; full: an accelerator; cifar10_subset.npz"

QUICK_ROWS = ("ERM", "DRNN", *ARM, "BN adaptation", "TENT")
PUBLISHED = {
    "ERM": ("49.6 ± 0.1", "69.8 ± 0.4"),
    "DRNN": ("44.5 ± 0.5", "70.7 ± 0.6"),
    "ARM-CML": ("67.7 ± 0.5", "79.2 ± 0.3"),
    "ARM-BN": ("71.1 ± 0.1", "80.9 ± 0.2"),
    "ARM-LL": ("66.9 ± 0.2", "75.7 ± 0.3"),
}


def get_table(quick: bool) -> Table:
    """The table; `quick` has a narrow network, few steps, few points and one seed."""
    if quick:
        protocol = Protocol(
            source=Cifar10C(
                points_per_set=100,
                train_points=300,
                validation_points=100,
                test_points=300,
            ),
            groups_per_step=3,
            width=16,
            context_channels=3,
            context_stats="set",
            learning_rate=3e-3,
            steps=150,
            evaluations=5,
            sets_per_batch=6,
            one_by_one=True,
        )
    else:
        protocol = Protocol(
            source=Cifar10C(points_per_set=100),
            groups_per_step=3,
            context_channels=3,
            context_stats="set",
            transform=decayed_sgd,
            learning_rate=1e-2,
            # 100 epochs of 186 steps.
            steps=18_600,
            evaluations=100,
            sets_per_batch=66,
        )
    return arm_table(
        "CIFAR-10-C: test accuracy",
        protocol,
        QUICK_ROWS if quick else ("ERM", "DRNN", *ARM, *MIXED, *ADAPTERS),
        seeds=1 if quick else 3,
        published=PUBLISHED,
        corruptions=True,
        notes=(
            "The corruptions are our own, with the published strengths. Where CIFAR-10 "
            "is the subset of the data directory the groups share its images: 5,000 "
            "train, 1,000 validate, 2,000 test. The published figures are of the whole "
            "set and a network of width 128, with 56,000 images in training."
            + (" Those of --quick do not compare." if quick else ""),
        ),
    )
