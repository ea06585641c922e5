"""MAML, 5-way 1-shot, on the classes of any folder of images."""

from jaxmeta import Experiment, Maml, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.data.image_classes import ImageClasses
from jaxmeta.networks.conv import Conv4

PAPER = "Finn, Abbeel, Levine 2017 (arXiv 1703.03400), table 1"
COST = "600 min and more on 2 CPU cores at 84 x 84; a folder with a folder a class"


def get_config() -> Experiment:
    """15 queries per class, five inner steps in training, ten in test."""
    return Experiment(
        learner=Maml(
            network=Conv4(features=32, num_classes=5),
            objective=cross_entropy,
            inner_steps=5,
            eval_inner_steps=10,
            inner_rate=0.01,
        ),
        source=ImageClasses(path="images", ways=5, shots=1, queries=15),
        optimizer=Optimizer(learning_rate=1e-3),
        evaluation=Evaluation(
            every=1000,
            num_validation_tasks=300,
            num_test_tasks=1000,
            checkpoint="best",
            metric="accuracy",
            mode="max",
        ),
        checkpoint=Checkpointing(every=1000),
        tasks_per_step=4,
        steps=60_000,
    )
