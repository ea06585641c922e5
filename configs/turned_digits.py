"""PCGrad on eight tasks that share all of one network and fight over it."""

import functools

from jaxmeta import Experiment, Optimizer, surgery
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.data.digit_tasks import TurnedDigits
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.networks.mlp import MLP, Encoder

PAPER = "Yu et al. 2020 (arXiv 2001.06782), algorithm 1"
COST = "15 s on 2 CPU cores; mnist_writers.npz in the data directory, else digits"


def get_config() -> Experiment:
    """Try it with `--diagnostics`, and with `jaxmeta:sum_over_tasks` as aggregator.

    800 batches are MNIST's test images once. Of scikit-learn's digits there are only
    382 for every task, so that each counts 26 times: the interval is too narrow.
    """
    return Experiment(
        learner=HardSharing(body=Encoder(features=(64,)), head=MLP(features=(10,))),
        source=TurnedDigits(num_examples=100),
        optimizer=Optimizer(
            aggregator=functools.partial(surgery.pcgrad, key=0), learning_rate=3e-3
        ),
        evaluation=Evaluation(
            every=500,
            num_validation_tasks=160,
            num_test_tasks=800,
            tasks_per_batch=8,
            metric="accuracy",
            mode="max",
        ),
        checkpoint=Checkpointing(every=500),
        tasks_per_step=8,
        steps=2000,
        log_every=50,
    )
