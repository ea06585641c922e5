"""Tiny ImageNet-C: 22 new corruptions and severities; ARM against ERM and DRO."""

from jaxmeta.core.table import Table
from jaxmeta.data.tiny_imagenet_c import TinyImageNetC
from jaxmeta.networks.resnet import ResNet50
from jaxmeta.report.arm import ADAPTERS, ARM, arm_table
from jaxmeta.shift.benchmark import Protocol, decayed_sgd

PAPER = "Zhang et al. 2021 (arXiv 2007.02931), section 5; authors' settings"
COST = "--quick: 40 min a seed on 2 CPU cores; full: an accelerator; Tiny ImageNet"

QUICK_ROWS = ("ERM", "DRNN", "ARM-CML", "ARM-BN", "BN adaptation")
PUBLISHED = {
    "ERM": ("19.3 ± 0.5", "41.4 ± 0.2"),
    "DRNN": ("19.9 ± 0.3", "41.6 ± 0.2"),
    "ARM-CML": ("21.4 ± 0.2", "43.3 ± 0.4"),
    "ARM-BN": ("27.7 ± 0.2", "44.9 ± 0.2"),
    "ARM-LL": ("27.1 ± 0.3", "44.2 ± 0.4"),
}


def get_table(quick: bool) -> Table:
    """The table; `quick` has a narrow ConvNet, few steps, few points and one seed."""
    if quick:
        protocol = Protocol(
            source=TinyImageNetC(
                points_per_set=100,
                train_points=200,
                validation_points=100,
                test_points=200,
            ),
            groups_per_step=3,
            width=16,
            context_channels=3,
            context_stats="set",
            learning_rate=3e-3,
            steps=200,
            evaluations=4,
            sets_per_batch=3,
            one_by_one=True,
        )
    else:
        protocol = Protocol(
            source=TinyImageNetC(points_per_set=100),
            groups_per_step=3,
            context_channels=3,
            context_stats="set",
            network=ResNet50,
            transform=decayed_sgd,
            learning_rate=1e-2,
            # 50 epochs of 340 steps.
            steps=17_000,
            evaluations=50,
            sets_per_batch=22,
        )
    return arm_table(
        "Tiny ImageNet-C: test accuracy",
        protocol,
        QUICK_ROWS if quick else ("ERM", "DRNN", *ARM, *ADAPTERS),
        seeds=1 if quick else 3,
        published=PUBLISHED,
        corruptions=True,
        notes=(
            "The published networks start from ImageNet weights, ours from random "
            "ones; the corruptions are our own, with the published strengths.",
        ),
    )
