"""Aug-Omniglot and Aug-MiniImagenet: every method on one data set, in one way.

Zhou, Knowles, Finn, "Meta-Learning Symmetries by Reparameterization" (2021), section 6
and algorithm 2: the support set of a task is as it is, the query set augmented, in
training and in testing, so that what does not matter has to be learned between tasks.
The authors released no code for it; what their text leaves open is set here, and the
same for all methods.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.experiment import (
    Checkpointing,
    Evaluation,
    Experiment,
    Optimizer,
)
from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.parallel import Parallel
from jaxmeta.data.episodes import EpisodeSource
from jaxmeta.data.source import settle
from jaxmeta.meta.anil import Anil
from jaxmeta.meta.maml import FAST, Maml
from jaxmeta.meta.norm_stats import NormStats
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.networks.conv import Conv4, LoopConv4
from jaxmeta.symmetry.augerino import Augerino, Averaged
from jaxmeta.symmetry.augment import Augment
from jaxmeta.symmetry.conv4 import MSRConv4
from jaxmeta.symmetry.sharing import Kronecker

ROWS = (
    "MAML",
    "MAML (Big)",
    "ANIL",
    "ProtoNets",
    "MSR",
    "MSR, U = identity",
    "Augerino",
)
"""Methods, in the order of the reference table; the last two are not in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the rows of one table have in common.

    Example:
      >>> from jaxmeta.data.digits import Digits
      >>> protocol = Protocol(source=Digits(), features=8, steps=100)
      >>> experiment = protocol.experiment("MSR", ways=5, shots=1, seed=0)
      >>> type(experiment.learner.network).__name__, experiment.source.augment
      ('MSRConv4', Augment(area=(0.8, 1.0), ratio=(0.75, 1.3333333333333333), ...
    """

    source: EpisodeSource
    """The data; its ways and shots are set, and its query set augmented."""

    features: int = 32
    """Channels of every block; MAML (Big) has more."""

    inner_steps: int = 1
    """In training."""

    eval_inner_steps: int = 1
    """In validation and testing. More than in training need not help: the learned rates
    are those of so many steps, and MAML's may be too long for a second one."""

    inner_rate: float = 0.4
    """Where the inner rates start; they are learned, one a tensor, and positive."""

    copies: int = 4
    """Of every image that Augerino averages over."""

    norm_stats: NormStats = "query"
    """Whose batch statistics normalise a query set."""

    learning_rate: float = 1e-3
    """Of Adam."""

    tasks_per_step: int = 32
    """Meta-batch."""

    steps: int = 60_000
    """Outer steps."""

    evaluations: int = 60
    """How often the run is validated; the best checkpoint is tested."""

    num_test_tasks: int = 2000
    """Held-out tasks, >= 1000 for a table."""

    one_by_one: bool | None = None
    """Whether MAML and ANIL take tasks in a Python loop or all at once. The loop is the
    faster on a CPU, and nowhere else; None: what suits this machine."""

    def learner(self, row: str, ways: int, example) -> Learner:
        """The method of a row.

        Args:
          row: one of `ROWS`.
          ways: classes of a task.
          example: a task, whose images say how large MAML (Big) is.

        Raises:
          ValueError: for a row that there is not.
        """
        plain = Conv4(features=self.features, num_classes=ways, drawn="torch")
        looped = LoopConv4(features=self.features, num_classes=ways, drawn="torch")
        on_cpu = jax.default_backend() == "cpu"
        loop = on_cpu if self.one_by_one is None else self.one_by_one
        adapted = looped if loop else plain
        msr = MSRConv4(features=self.features, num_classes=ways)
        settings = {
            "objective": cross_entropy,
            "inner_steps": self.inner_steps,
            "eval_inner_steps": self.eval_inner_steps,
            "inner_rate": self.inner_rate,
            "positive_rates": True,
            "norm_stats": self.norm_stats,
        }
        if row == "MAML":
            return Maml(network=adapted, **settings)
        if row == "MAML (Big)":
            return Maml(network=as_large(adapted, msr, example), **settings)
        if row == "ANIL":
            return Anil(network=adapted, **settings)
        if row == "ProtoNets":
            network = plain.clone(num_classes=None)
            return ProtoNet(network=network, ways=ways, norm_stats=self.norm_stats)
        if row == "MSR":
            return Maml(network=msr, **settings)
        if row == "MSR, U = identity":
            fixed = Kronecker(learned=False)
            network = MSRConv4(
                features=self.features,
                num_classes=ways,
                sharing=fixed,
                share_head=False,
            )
            return Maml(network=network, **settings)
        if row == "Augerino":
            averaged = Averaged(network=plain, copies=self.copies)
            return Augerino(network=averaged, **settings)
        raise ValueError(f"there is no method {row!r}; there are {', '.join(ROWS)}.")

    @functools.cached_property
    def _source(self) -> EpisodeSource:
        """The data that this machine has."""
        source = settle(self.source)
        assert isinstance(source, EpisodeSource)
        return source

    def experiment(self, row: str, *, ways: int, shots: int, seed: int) -> Experiment:
        """The training of a row.

        Raises:
          ValueError: for a row that there is not.
        """
        source = dataclasses.replace(
            self._source, ways=ways, shots=shots, augment=Augment()
        )
        every = max(1, self.steps // self.evaluations)
        learner = self.learner(row, ways, self._source.example)
        loop = isinstance(getattr(learner, "network", None), LoopConv4)
        return Experiment(
            learner=learner,
            source=source,
            parallel=Parallel(backend="loop" if loop else "shard_map"),
            optimizer=Optimizer(learning_rate=self.learning_rate),
            evaluation=Evaluation(
                every=every,
                num_validation_tasks=min(300, self.num_test_tasks),
                num_test_tasks=self.num_test_tasks,
                tasks_per_batch=self.tasks_per_step if loop else 32,
                checkpoint="best",
                metric="accuracy",
                mode="max",
            ),
            checkpoint=Checkpointing(every=every),
            tasks_per_step=self.tasks_per_step,
            steps=self.steps,
            log_every=every,
            seed=seed,
        )


def num_parameters(network: Conv4, example) -> int:
    """How many numbers the two loops learn of a network, symmetry matrices included.

    Args:
      network: for images.
      example: a task of them.

    Example:
      >>> from jaxmeta.data.digits import Digits
      >>> num_parameters(Conv4(features=32), Digits().example)
      28357
    """
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jnp.zeros_like(example.support.inputs)
    )
    learned = (shapes[FAST], shapes.get("symmetry", {}))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(learned))


def as_large(network: Conv4, other: Conv4, example) -> Conv4:
    """A network with more channels, just enough to have as many parameters as another.

    Args:
      network: to be made larger.
      other: with more parameters.
      example: a task of the images of both.

    Example:
      >>> from jaxmeta.data.digits import Digits
      >>> big = as_large(Conv4(features=32), MSRConv4(features=32), Digits().example)
      >>> big.features
      37
    """
    wanted = num_parameters(other, example)
    for features in itertools.count(network.features):
        larger = network.clone(features=features)
        if num_parameters(larger, example) >= wanted:
            return larger
    raise AssertionError("a count has no end")
