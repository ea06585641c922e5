"""Rotated MNIST: 14 angles of which some are rare; ARM against ERM, DRO and others."""

import optax

from jaxmeta.core.table import Table
from jaxmeta.data.rotated_mnist import RotatedMnist
from jaxmeta.report.arm import ADAPTERS, ARM, MIXED, arm_table
from jaxmeta.shift.benchmark import Protocol

PAPER = "Zhang et al. 2021 (arXiv 2007.02931), section 5; authors' settings"
COST = "--quick: 30 min a seed on 2 CPU cores; full: an accelerator; mnist_writers.npz"

QUICK_ROWS = (
    "ERM",
    "UW",
    "DRNN",
    "q-FedAvg",
    "DANN",
    "MMD",
    *ARM,
    MIXED[1],
    "BN adaptation",
    "TENT",
)


def get_table(quick: bool) -> Table:
    """The table; `quick` has a narrow network, few steps, few points and one seed."""
    if quick:
        protocol = Protocol(
            source=RotatedMnist(test_points=500),
            width=16,
            learning_rate=1e-3,
            steps=200,
            evaluations=5,
            client_sets=3,
            one_by_one=True,
        )
    else:
        protocol = Protocol(
            source=RotatedMnist(),
            transform=optax.adam,
            learning_rate=1e-4,
            # 200 epochs of 107 steps, validated every tenth.
            steps=21_400,
            evaluations=20,
            log_every=107,
            sets_per_batch=84,
        )
    rows = QUICK_ROWS if quick else (*QUICK_ROWS[:9], *MIXED, *ADAPTERS)
    return arm_table(
        "Rotated MNIST: test accuracy",
        protocol,
        rows,
        seeds=1 if quick else 3,
        aims=(4.0, 1.0) if quick else None,
        notes=(
            "Adam, 6 groups of 50 images a step (300 mixed ones for ERM, UW, DRNN and "
            "DANN). q-FedAvg: group normalisation, q = 1, SGD .1 on the clients.",
        ),
    )
