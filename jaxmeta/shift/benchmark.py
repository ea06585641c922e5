"""The protocol of the ARM paper: every method on one data set, in one way.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (arXiv
2007.02931), section 5 and appendix: a step sees G groups of K points, or as many
points of a mixed batch; the checkpoint with the best worst-case validation accuracy is
tested, group by group in batches of K; what is reported is the worst group (WC) and the
average over groups.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optax

from jaxmeta.core.aggregate import mean_over_tasks, sum_over_tasks
from jaxmeta.core.experiment import Evaluation, Experiment, Optimizer
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.transfer import Transfer
from jaxmeta.data.groups import GroupSource
from jaxmeta.data.source import settle
from jaxmeta.networks.convnet import ContextNet, ConvNet, Normalisation
from jaxmeta.shift.adaptation import Adapter, Adapting
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.dann import Dann, alternating
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.fed_avg import LocalSgd
from jaxmeta.shift.learner import ShiftLearner
from jaxmeta.shift.mmd import Mmd
from jaxmeta.surgery import GroupDRO, q_fedavg


def decayed_sgd(learning_rate: float) -> optax.GradientTransformation:
    """SGD with momentum .9 and weight decay 1e-4 added to the gradient (coupled).

    Example:
      >>> import jax.numpy as jnp
      >>> tx, params = decayed_sgd(1.0), jnp.ones(1)
      >>> updates, _ = tx.update(jnp.zeros(1), tx.init(params), params)
      >>> f"{updates.item():.0e}"
      '-1e-04'
    """
    return optax.chain(
        optax.add_decayed_weights(1e-4), optax.sgd(learning_rate, momentum=0.9)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the rows of one table have in common.

    Example:
      >>> from jaxmeta.data.digit_groups import RotatedDigits
      >>> protocol = Protocol(source=RotatedDigits(), width=8, steps=100)
      >>> experiment = protocol.experiment("ARM-BN", 0)
      >>> type(experiment.learner).__name__, experiment.source.sets_per_task
      ('ArmBn', 6)
    """

    source: GroupSource
    """The data; its `points_per_set` is K. Methods choose the sampler."""

    groups_per_step: int = 6
    """G."""

    width: int = 128
    """Of the convolutional network, and twice that of the context network."""

    context_channels: int = 12
    """Of the context of ARM-CML."""

    context_stats: Literal["running", "set"] = "running"
    """Normalisation of ARM-CML, see there."""

    network: Callable[..., Any] | None = None
    """Makes another network from `num_classes=`; the ConvNet when None."""

    transform: Callable[..., optax.GradientTransformation] = optax.adam
    """The optimiser."""

    learning_rate: float = 1e-4
    """Of it."""

    client_rate: float = 0.1
    """Learning rate of the clients of q-FedAvg."""

    fairness: float = 1.0
    """q of q-FedAvg."""

    client_sets: int = 6
    """Batches of K points that a client of q-FedAvg has at most. A round sees as many
    times more points than a step, and there are as many times fewer rounds."""

    steps: int = 1000
    """Outer steps."""

    evaluations: int = 8
    """How often the run is validated."""

    log_every: int | None = None
    """Steps between lines of metrics; those between validations when None."""

    sets_per_batch: int = 14
    """Sets that are evaluated at a time."""

    one_by_one: bool = False
    """Whether sets with weights of their own are gone through in a Python loop, which
    is faster on a CPU, or all at once."""

    def _network(self, large: bool = True, norm: Normalisation = "batch"):
        classes = self.source.num_classes
        if self.network is not None:
            return self.network(num_classes=classes)
        return ConvNet(num_classes=classes, width=self.width, large=large, norm=norm)

    def learner(self, row: str) -> Any:
        """The method of a row, as the paper sets it.

        Raises:
          ValueError: for a row that there is not, or that has no such network.
        """
        num_groups = len(self.source.sizes("train"))
        makers = {
            "ERM": lambda: Erm(network=self._network()),
            "DRNN": lambda: Erm(
                network=self._network(),
                weighting=GroupDRO(num_tasks=num_groups, step_size=0.01),
                num_groups=num_groups,
            ),
            "DANN": lambda: Dann(network=self._network(), num_groups=num_groups),
            "MMD": lambda: Mmd(network=self._network()),
            "q-FedAvg": lambda: LocalSgd(
                learner=Erm(network=self._network(norm="group")), rate=self.client_rate
            ),
            "ARM-CML": lambda: ArmCml(
                network=self._network(large=False),
                context=ContextNet(
                    channels=self.context_channels, width=max(1, self.width // 2)
                ),
                norm_stats=self.context_stats,
            ),
            "ARM-BN": lambda: ArmBn(network=self._network()),
            "ARM-LL": lambda: ArmLl(network=self._network()),
        }
        makers["UW"] = makers["ERM"]
        name = row.removesuffix(", mixed groups")
        if name not in makers:
            raise ValueError(f"there is no method {row!r}; there are {sorted(makers)}.")
        if name == "q-FedAvg" and self.network is not None:
            raise ValueError(
                "q-FedAvg is of the ConvNet with group normalisation alone, as clients "
                "share no batch statistics; leave network None."
            )
        return makers[name]()

    def experiment(self, row: str, seed: int) -> Experiment:
        """The training of a row: `method` or `method, mixed groups`.

        Raises:
          ValueError: for a row that there is not.
        """
        learner, mixed = self.learner(row), row.endswith(", mixed groups")
        if row == "ERM" or row == "DANN" or mixed:
            sampler = "point"
        elif row in ("UW", "DRNN"):
            sampler = "point_balanced"
        else:
            sampler = "client" if row == "q-FedAvg" else "group"
        # Sets with weights of their own are tasks of their own.
        apart = row.startswith("ARM-LL") or row == "q-FedAvg"
        sets, tasks = self.groups_per_step, 1
        steps = self.steps
        if apart:
            sets, tasks = 1, sets
        if row == "q-FedAvg":
            sets, steps = self.client_sets, steps // self.client_sets
        source = settle(self.source)
        assert isinstance(source, GroupSource)
        source = dataclasses.replace(source, sampler=sampler, sets_per_task=sets)
        loop = apart and self.one_by_one
        every = max(1, steps // self.evaluations)
        return Experiment(
            learner=learner,
            source=source,
            optimizer=self._optimizer(row),
            parallel=Parallel(backend="loop" if loop else "vmap"),
            evaluation=Evaluation(
                every=every,
                num_validation_tasks=source.num_slots("validation"),
                num_test_tasks=source.num_slots("test"),
                tasks_per_batch=6 if loop else self.sets_per_batch,
                checkpoint="best",
                metric="accuracy",
                mode="max",
                over_tasks="worst",
            ),
            tasks_per_step=tasks,
            steps=steps,
            log_every=every if row == "q-FedAvg" else self.log_every or every,
            seed=seed,
        )

    def _optimizer(self, row: str) -> Optimizer:
        if row == "q-FedAvg":
            return Optimizer(
                aggregator=functools.partial(
                    q_fedavg, q=self.fairness, rate=self.client_rate
                ),
                transform=optax.sgd,
                learning_rate=1.0,
            )
        transform = self.transform
        if row == "DANN":
            transform = functools.partial(alternating, transform=transform)
        # The authors add the losses of ARM-LL's groups, and average all others.
        total = row.startswith("ARM-LL")
        return Optimizer(
            aggregator=sum_over_tasks if total else mean_over_tasks,
            transform=transform,
            learning_rate=self.learning_rate,
        )

    def adapted(self, row: str, adapter: Adapter, seed: int) -> Transfer:
        """What a method trained, with test-time adaptation.

        Raises:
          ValueError: for a row that there is not.
        """
        trained = self.experiment(row, seed)
        method = trained.learner
        if isinstance(method, LocalSgd):  # of which it is what clients train
            method = method.learner
        assert isinstance(method, ShiftLearner)
        learner = Adapting(learner=method, adapter=adapter)
        return Transfer(trained=trained, learner=learner)


def worst_group(values: dict[str, np.ndarray], experiment: Any) -> float:
    """WC: the accuracy of the worst group.

    Example:
      >>> worst_group({"accuracy": np.array([0.5, 0.9])}, None)
      0.5
    """
    del experiment
    return float(values["accuracy"].min())


def weighted_by_size(values: dict[str, np.ndarray], experiment: Any) -> float:
    """The accuracy of a point: groups count by their size."""
    sizes = experiment.source.sizes("test")
    return float(np.average(values["accuracy"], weights=sizes))
