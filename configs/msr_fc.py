"""MSR-FC on 1-D translation of rank 1: one run, to train and look at."""

from jaxmeta import Experiment, Maml, MSRDense, Optimizer, sum_over_tasks
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.data.translation import TranslationSource

PAPER = "Zhou, Knowles, Finn 2021 (arXiv 2007.02933), algorithm 1"
COST = "20 s on 2 CPU cores"


def get_config() -> Experiment:
    """The protocol of the table `msr-translation`, with validation on the way."""
    return Experiment(
        learner=Maml(network=MSRDense(features=68, inner_dim=3)),
        source=TranslationSource(rank=1),
        optimizer=Optimizer(aggregator=sum_over_tasks, learning_rate=1e-3),
        evaluation=Evaluation(every=100, num_test_tasks=5000),
        checkpoint=Checkpointing(every=500),
        steps=1500,
    )
