"""MSR on 5-way 1-shot Omniglot whose query images are augmented; one row of a table."""

from jaxmeta import Experiment, Maml, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.data.omniglot import Omniglot
from jaxmeta.symmetry.augment import Augment
from jaxmeta.symmetry.conv4 import MSRConv4

PAPER = "Zhou, Knowles, Finn 2021 (arXiv 2007.02933), section 6"
COST = "8 to 12 min on 2 CPU cores; omniglot.npz in the data directory, else digits"


def get_config() -> Experiment:
    """As in `aug-omniglot --quick`; the augmentations' ranges have options here."""
    return Experiment(
        learner=Maml(
            network=MSRConv4(features=16, num_classes=5),
            objective=cross_entropy,
            inner_rate=0.4,
            positive_rates=True,
        ),
        source=Omniglot(ways=5, shots=1, queries=5, augment=Augment()),
        optimizer=Optimizer(learning_rate=1e-3),
        evaluation=Evaluation(
            every=600,
            num_validation_tasks=300,
            num_test_tasks=1000,
            checkpoint="best",
            metric="accuracy",
            mode="max",
        ),
        checkpoint=Checkpointing(every=600),
        tasks_per_step=4,
        steps=6000,
    )
