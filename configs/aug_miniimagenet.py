"""Aug-MiniImagenet: symmetries learned from augmented queries; MSR against MAML."""

from jaxmeta.core.table import Table
from jaxmeta.data.mini_imagenet import MiniImageNet
from jaxmeta.report.aug import aug_table
from jaxmeta.symmetry.benchmark import Protocol

PAPER = "Zhou, Knowles, Finn 2021 (arXiv 2007.02933), section 6"
COST = "--quick: hours on 2 CPU cores; full: an accelerator; mini-ImageNet"

PUBLISHED = {
    "MAML": ("42.5 ± 1.1", "61.5 ± 1.0"),
    "MAML (Big)": ("37.2 ± 1.1", "63.2 ± 1.0"),
    "ANIL": ("43.0 ± 1.1", "62.3 ± 1.0"),
    "ProtoNets": ("34.6 ± 0.5", "54.5 ± 0.6"),
    "MSR": ("45.5 ± 1.1", "65.2 ± 1.0"),
}
COLUMNS = ((5, 1), (5, 5))


def get_table(quick: bool) -> Table:
    """The table; `quick` is 5-way 1-shot with a narrow network and fewer tasks."""
    if quick:
        protocol = Protocol(
            source=MiniImageNet(queries=5),
            features=8,
            copies=2,
            inner_rate=0.1,
            tasks_per_step=4,
            steps=3000,
            evaluations=10,
            num_test_tasks=1000,
        )
    else:
        protocol = Protocol(source=MiniImageNet(queries=15), inner_rate=0.1)
    return aug_table(
        "Aug-MiniImagenet: test accuracy",
        protocol,
        COLUMNS[:1] if quick else COLUMNS,
        seeds=1 if quick else 3,
        published=PUBLISHED,
        notes=(
            "The published figures are of 60,000 steps of 32 tasks and 600 images a "
            "class, of which the file of the data directory has 20."
            + (" Those of --quick do not compare." if quick else ""),
        ),
    )
