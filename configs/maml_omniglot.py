"""MAML on 5-way 1-shot Omniglot with the standard four-block network."""

from jaxmeta import Experiment, Maml, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.data.omniglot import Omniglot
from jaxmeta.networks.conv import Conv4

PAPER = "Finn, Abbeel, Levine 2017 (arXiv 1703.03400), table 1"
COST = "5 to 13 min on 2 CPU cores; omniglot.npz in the data directory, else digits"


def get_config() -> Experiment:
    """Vinyals split, 5 queries per class, one inner step in training, three in test."""
    return Experiment(
        learner=Maml(
            network=Conv4(features=32, num_classes=5),
            objective=cross_entropy,
            inner_steps=1,
            eval_inner_steps=3,
            inner_rate=0.4,
        ),
        source=Omniglot(ways=5, shots=1, queries=5),
        optimizer=Optimizer(learning_rate=1e-3),
        evaluation=Evaluation(
            every=500,
            num_validation_tasks=320,
            num_test_tasks=2000,
            checkpoint="best",
            metric="accuracy",
            mode="max",
        ),
        checkpoint=Checkpointing(every=500),
        tasks_per_step=8,
        steps=2500,
    )
