"""MNIST by the hand that wrote it: 100 new writers; ARM against ERM, DRO and others."""

from jaxmeta.core.table import Table
from jaxmeta.data.mnist_writers import MnistWriters
from jaxmeta.report.arm import ADAPTERS, ARM, MIXED, arm_table
from jaxmeta.shift.benchmark import Protocol

PAPER = (
    "Zhang et al. 2021 (arXiv 2007.02931), the methods; writers of Yadav, Bottou 2019"
)
COST = "--quick: 25 min a seed on 2 CPU cores; full: an accelerator; mnist_writers.npz"

QUICK_ROWS = ("ERM", "UW", "DRNN", "q-FedAvg", *ARM, "BN adaptation", "TENT")


def get_table(quick: bool) -> Table:
    """The table; `quick` has a narrow network, few steps and one seed."""
    source = MnistWriters(points_per_set=50)
    if quick:
        protocol = Protocol(
            source=source,
            groups_per_step=4,
            width=16,
            context_channels=4,
            learning_rate=1e-3,
            steps=150,
            evaluations=5,
            sets_per_batch=20,
            client_sets=3,
            one_by_one=True,
        )
    else:
        protocol = Protocol(
            source=source,
            groups_per_step=6,
            steps=21_400,
            evaluations=20,
            log_every=107,
            sets_per_batch=100,
        )
    rows = QUICK_ROWS if quick else (*QUICK_ROWS[:4], *ARM, *MIXED, *ADAPTERS)
    return arm_table(
        "MNIST by writer: test accuracy",
        protocol,
        rows,
        seeds=1 if quick else 3,
        notes=(
            "389 writers train, 50 validate, 100 test; 19 to 131 digits each, so that "
            "the worst writer of 100 is decided by a handful of digits.",
        ),
    )
