"""ARM-BN on turned digits: normalise with the statistics of the group, always."""

from jaxmeta import Experiment, Optimizer, Parallel
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.shift.arm_bn import ArmBn

PAPER = "Zhang et al. 2021 (arXiv 2007.02931), section 4.1"
COST = "30 s on 2 CPU cores; no data files"


def get_config() -> Experiment:
    """Six groups of 32 points a step; the checkpoint with the best worst group."""
    source = RotatedDigits(points_per_set=32, sets_per_task=6)
    return Experiment(
        learner=ArmBn(network=ConvNet(num_classes=10, width=8)),
        source=source,
        optimizer=Optimizer(learning_rate=3e-3),
        # One batch of all groups is one task.
        parallel=Parallel(backend="vmap"),
        evaluation=Evaluation(
            every=40,
            num_validation_tasks=source.num_slots("validation"),
            num_test_tasks=source.num_slots("test"),
            tasks_per_batch=14,
            checkpoint="best",
            metric="accuracy",
            mode="max",
            over_tasks="worst",
        ),
        checkpoint=Checkpointing(every=40),
        tasks_per_step=1,
        steps=160,
        log_every=40,
    )
