"""Aug-Omniglot: symmetries learned from augmented queries; MSR against MAML."""

from jaxmeta.core.table import Table
from jaxmeta.data.omniglot import Omniglot
from jaxmeta.report.aug import aug_table
from jaxmeta.symmetry.benchmark import Protocol

PAPER = "Zhou, Knowles, Finn 2021 (arXiv 2007.02933), section 6"
COST = "--quick: 80 min on 2 CPU cores; full: an accelerator; omniglot.npz"

PUBLISHED = {
    "MAML": ("87.3 ± 0.5", "93.6 ± 0.3", "67.0 ± 0.4", "79.9 ± 0.3"),
    "MAML (Big)": ("89.3 ± 0.4", "94.8 ± 0.3", "69.6 ± 0.4", "83.2 ± 0.3"),
    "ANIL": ("86.4 ± 0.5", "93.2 ± 0.3", "67.5 ± 3.5", "79.8 ± 0.3"),
    "ProtoNets": ("92.9 ± 0.4", "97.4 ± 0.2", "85.1 ± 0.3", "94.3 ± 0.2"),
    "MSR": ("95.3 ± 0.3", "97.7 ± 0.2", "84.3 ± 0.2", "92.6 ± 0.2"),
}
COLUMNS = ((5, 1), (5, 5), (20, 1), (20, 5))


def get_table(quick: bool) -> Table:
    """The table; `quick` is 5-way 1-shot with a narrow network and fewer tasks."""
    if quick:
        protocol = Protocol(
            source=Omniglot(queries=5),
            features=16,
            copies=2,
            tasks_per_step=4,
            steps=6_000,
            evaluations=10,
            num_test_tasks=1000,
        )
    else:
        protocol = Protocol(source=Omniglot(queries=5))
    return aug_table(
        "Aug-Omniglot: test accuracy",
        protocol,
        COLUMNS[:1] if quick else COLUMNS,
        seeds=1 if quick else 3,
        published=PUBLISHED,
        gain=3.0,
        notes=(
            "Omniglot with the classes turned by 90, 180 and 270 degrees, 5 queries a "
            "class. The published figures are of 60,000 steps of 32 tasks."
            + (" Those of --quick do not compare." if quick else ""),
        ),
    )
