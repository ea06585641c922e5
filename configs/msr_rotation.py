"""MSR and plain convolutions on 2-D rotation and reflection symmetry."""

import functools

from jaxmeta import Experiment, Maml, MSRConv, Optimizer, sum_over_tasks
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.table import Cell, Table
from jaxmeta.data.rotation import RotationSource
from jaxmeta.networks.patches import PatchConv
from jaxmeta.symmetry.floor import one_step_floor

PAPER = "Zhou, Knowles, Finn 2021 (arXiv 2007.02933), synthetic problems"
COST = "--quick: 10 min, full: 45 min (3 seeds), on 2 CPU cores"

PUBLISHED = {
    "MSR-Conv": {"Rot": ".004", "Rot+Flip": ".001"},
    "MAML-Conv": {"Rot": ".504", "Rot+Flip": ".507"},
}
# What an earlier, independent implementation of the same equations reached under this
# protocol. The released code, run as far as it goes, agrees.
REFERENCE = {
    "MSR-Conv": {"Rot": 0.0051, "Rot+Flip": 0.0050},
    "MAML-Conv, inner rate tuned": {"Rot": 0.0065, "Rot+Flip": 0.0058},
}


def experiment(learner: Maml, flip: bool, seed: int) -> Experiment:
    """The released code's training: Adam 1e-3 on the summed gradient of 32 tasks."""
    return Experiment(
        learner=learner,
        source=RotationSource(flip=flip),
        optimizer=Optimizer(aggregator=sum_over_tasks, learning_rate=1e-3),
        evaluation=Evaluation(num_test_tasks=5000, tasks_per_batch=40),
        checkpoint=Checkpointing(every=500),
        steps=1000,
        seed=seed,
    )


def between(low: float, high: float):
    """Accepts values from `low` to `high`, whatever the data set."""
    return lambda source: (low, high)


def cells(flip: bool) -> list[Cell]:
    """The rows of one column."""
    column = "Rot+Flip" if flip else "Rot"
    channels = 48 if flip else 24
    plain = PatchConv(features=channels, kernel_size=(3, 3))
    learners = {
        "MSR-Conv": Maml(network=MSRConv(features=channels, kernel_size=(3, 3))),
        "MAML-Conv": Maml(network=plain),
        # The loss averages over the output channels, so a gradient step on one kernel
        # is `channels / 2` times too short at rate 1.
        "MAML-Conv, inner rate tuned": Maml(network=plain, inner_rate=channels / 2),
    }
    made = []
    for row, learner in learners.items():
        if row in REFERENCE:
            high = 1.5 * REFERENCE[row][column]
            accept, claim = between(0, high), f"at most {high:.4f}"
        else:
            accept, claim = between(0.45, 0.55), "between .45 and .55"
        made.append(
            Cell(
                row=row,
                column=column,
                experiment=functools.partial(experiment, learner, flip),
                protocol="1 inner, 1,000 outer steps, inner rate from "
                f"{learner.inner_rate:g}",
                published=PUBLISHED.get(row, {}).get(column),
                floor=one_step_floor,
                accept=accept,
                claim=claim,
            )
        )
    return made


def get_table(quick: bool) -> Table:
    """The table; `quick` is rotation alone with one seed."""
    columns = [cells(False)] if quick else [cells(False), cells(True)]
    by_row = [cell for row in zip(*columns, strict=True) for cell in row]
    return Table(
        title="2-D rotation and reflection: test mean squared error",
        source="Zhou, Knowles, Finn, Meta-Learning Symmetries by Reparameterization, "
        "as tabulated in lecture slides; they fit the one-inner-step protocol of the "
        "released code",
        metric="loss",
        cells=tuple(by_row),
        seeds=1 if quick else 3,
        notes=(
            "Protocol: 32 x 32 white-noise images, 1 support and 19 query examples, "
            "Adam 1e-3 on the summed gradient of 32 tasks, inner rates learned per "
            "tensor.",
            "MAML-Conv as published starts its inner rate at 0.1, where it stays far "
            "too small for 1,000 steps; with the rate started at half the number of "
            "channels the same model is nearly as good as MSR-Conv. The published gap "
            "is one of tuning. The published .001 for Rot+Flip is below the floor of "
            "one step and is not promised.",
        ),
    )
