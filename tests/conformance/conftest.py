"""Every learner of the library, with a small source that suits it.

A new learner is added here, and is then covered by everything in this directory.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from jaxmeta import (
    Learner,
    Maml,
    MSRConv,
    MSRDense,
    Parallel,
    TaskSource,
    init_state,
    make_train_step,
    mean_over_tasks,
)
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.testing import compilations, smoke_learner, smoke_source
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.data.digit_tasks import TurnedDigits, TwoDigits
from jaxmeta.data.digits import Digits
from jaxmeta.data.rotation import RotationSource
from jaxmeta.data.translation import TranslationSource
from jaxmeta.meta.anil import Anil
from jaxmeta.meta.meta_gradient import (
    FirstOrder,
    Implicit,
    MixFlow,
    Reptile,
    Truncated,
    Unrolled,
)
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.networks.mlp import MLP, Encoder
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.networks.patches import PatchConv
from jaxmeta.shift.adaptation import (
    Adapting,
    Tent,
)
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.dann import Dann
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.fed_avg import LocalSgd
from jaxmeta.shift.mmd import Mmd
from jaxmeta.surgery import GroupDRO, pcgrad
from jaxmeta.symmetry.augerino import Augerino, Averaged
from jaxmeta.symmetry.conv4 import MSRConv4
from jaxmeta.symmetry.layers import KroneckerMSRDense, LocallyConnected, Signal
from jaxmeta.symmetry.sharing import Kronecker, LowRank, Sinkhorn

SIGNALS = TranslationSource(input_size=7, num_query=3)
IMAGES = RotationSource(image_size=5, num_query=2)
EPISODES = Digits(ways=2, shots=1, queries=2, image_size=8)
MLP_5 = MLP(features=(6, 5))
BODY = Encoder(features=(8,))
TURNED = TurnedDigits(num_tasks=4, num_examples=3, origin="digits")


@dataclasses.dataclass(frozen=True)
class Case:
    """A learner, and a source of a few small tasks for it."""

    name: str
    learner: Learner
    source: TaskSource
    atol: float = 1e-6  # batch normalisation of few points magnifies rounding


CASES = [
    Case("smoke", smoke_learner(), smoke_source()),
    Case("maml-mlp", Maml(network=MLP_5), SIGNALS),
    Case("maml-mlp-fixed-rate", Maml(network=MLP_5, rates="fixed"), SIGNALS),
    *(
        Case(
            f"maml-mlp-{type(choice).__name__}",
            Maml(network=MLP_5, inner_steps=2, rates="fixed", meta_gradient=choice),
            SIGNALS,
            # Conjugate gradients stop a step earlier or later.
            atol=2e-4 if isinstance(choice, Implicit) else 1e-6,
        )
        # So damped their equations are too easy for it to matter where they stop.
        for choice in (FirstOrder(), MixFlow(), Implicit(damping=10.0), Truncated())
    ),
    Case("maml-mlp-per-parameter", Maml(network=MLP_5, rates="per_parameter"), SIGNALS),
    Case("maml-mlp-3-steps", Maml(network=MLP_5, inner_steps=3), SIGNALS),
    Case(
        "maml-mlp-3-steps-per-step-no-remat",
        Maml(
            network=MLP_5,
            inner_steps=3,
            per_step=True,
            rates="per_parameter",
            meta_gradient=Unrolled(remat=False),
        ),
        SIGNALS,
    ),
    Case("msr-fc", Maml(network=MSRDense(features=5, inner_dim=3)), SIGNALS),
    Case(
        "msr-fc-3-steps",
        Maml(network=MSRDense(features=5, inner_dim=3), inner_steps=3),
        SIGNALS,
    ),
    Case("msr-kronecker", Maml(network=KroneckerMSRDense(features=5)), SIGNALS),
    Case(
        "maml-lc",
        Maml(network=Signal(LocallyConnected(features=1, kernel_size=3))),
        SIGNALS,
    ),
    Case(
        "maml-conv-1d",
        Maml(network=Signal(PatchConv(features=1, kernel_size=(3,)))),
        SIGNALS,
    ),
    Case("msr-conv", Maml(network=MSRConv(features=24, kernel_size=(3, 3))), IMAGES),
    Case(
        "maml-conv4",
        Maml(
            network=Conv4(features=3, num_classes=2, num_blocks=1),
            objective=cross_entropy,
            inner_rate=0.4,
            eval_inner_steps=2,
        ),
        EPISODES,
    ),
    Case(
        "anil-conv4",
        Anil(
            network=Conv4(features=3, num_classes=2, num_blocks=1),
            objective=cross_entropy,
        ),
        EPISODES,
    ),
    Case(
        "protonet",
        ProtoNet(network=Conv4(features=3, num_classes=None, num_blocks=2), ways=2),
        EPISODES,
        atol=3e-5,
    ),
    *(
        Case(
            f"maml-conv4-{norm_stats}",
            Maml(
                network=Conv4(features=3, num_classes=2, num_blocks=1),
                objective=cross_entropy,
                norm_stats=norm_stats,
            ),
            EPISODES,
            atol=3e-5,
        )
        for norm_stats in ("support", "running")
    ),
    *(
        Case(
            f"msr-conv4-{type(sharing).__name__}",
            Maml(
                network=MSRConv4(
                    features=4, num_classes=2, num_blocks=1, sharing=sharing
                ),
                objective=cross_entropy,
                positive_rates=True,
            ),
            EPISODES,
            atol=3e-5,
        )
        for sharing in (Kronecker(), LowRank(rank=5), Sinkhorn(copies=2))
    ),
    Case(
        "augerino-conv4",
        Augerino(
            network=Averaged(
                network=Conv4(features=2, num_classes=2, num_blocks=1), copies=2
            ),
            objective=cross_entropy,
        ),
        EPISODES,
        atol=3e-5,
    ),
    Case(
        "maml-mlp-multi-step",
        Maml(network=MLP_5, inner_steps=2, multi_step_loss=5),
        SIGNALS,
    ),
    Case(
        "reptile-mlp",
        Maml(network=MLP_5, inner_steps=2, rates="fixed", meta_gradient=Reptile()),
        SIGNALS,
    ),
    Case("one-head", HardSharing(body=BODY, head=MLP(features=(10,))), TURNED),
    Case(
        "head-a-task",
        HardSharing(body=BODY, head=MLP(features=(10,)), num_heads=2),
        TwoDigits(num_examples=3, origin="digits"),
    ),
]

SETS = RotatedDigits(image_size=16, points_per_set=6, sets_per_task=2)
NET = NormMLP(features=(6,), num_classes=10)
IMAGE_NET = ConvNet(num_classes=10, width=2, large=False)
ERM = Erm(network=NET)

CASES += [
    Case("shift-erm", ERM, SETS),
    Case(
        "shift-group-dro",
        Erm(network=NET, weighting=GroupDRO(num_tasks=14), num_groups=14),
        dataclasses.replace(SETS, sampler="point_balanced"),
    ),
    Case("shift-arm-bn", ArmBn(network=NET), SETS),
    Case(
        "shift-arm-cml",
        ArmCml(network=NET, context=ContextNet(channels=1, width=2)),
        SETS,
        atol=1e-5,
    ),
    Case(
        "shift-arm-cml-of-sets",
        ArmCml(network=NET, context=ContextNet(channels=1, width=2), norm_stats="set"),
        SETS,
        atol=1e-5,
    ),
    Case("shift-arm-ll", ArmLl(network=NET, inner_rate=0.01), SETS, atol=1e-5),
    Case("shift-mmd", Mmd(network=NET), SETS, atol=1e-5),
    Case("shift-dann", Dann(network=NET, num_groups=14), SETS),
    Case(
        "shift-fed-avg",
        LocalSgd(learner=ERM, rate=0.01),
        dataclasses.replace(SETS, sampler="client"),
        atol=1e-5,
    ),
    Case("shift-tent", Adapting(learner=ERM, adapter=Tent()), SETS),
    *(
        Case(f"shift-{name}-convnet", learner, SETS, atol=3e-5)
        for name, learner in {
            "erm": Erm(network=IMAGE_NET),
            "arm-bn": ArmBn(network=IMAGE_NET),
            "arm-cml": ArmCml(network=IMAGE_NET, context=ContextNet(channels=1)),
            "arm-ll": ArmLl(network=IMAGE_NET, inner_rate=0.001),
        }.items()
    ),
]


SLOW = {
    # Motions of images inside a meta-gradient compile for half a minute a backend.
    "augerino-conv4",
    # Others like them are quick to compile or tested every time.
    "maml-conv4-running",
    "maml-mlp-Truncated",
    "msr-conv4-LowRank",
    "msr-conv4-Sinkhorn",
    *(f"shift-{name}-convnet" for name in ("erm", "arm-bn", "arm-cml", "arm-ll")),
}


def _param(case: Case):
    marks = pytest.mark.slow if case.name in SLOW else ()
    return pytest.param(case.name, marks=marks)


NAMED = {case.name: case for case in CASES}


@pytest.fixture(scope="session", params=map(_param, CASES))
def case(request) -> Case:
    """Each learner in turn."""
    return NAMED[request.param]


class Step(NamedTuple):
    """A step on four devices, compiled once, and what it is given."""

    run: Callable
    arguments: tuple

    def trace(self):
        return self.run.trace(*self.arguments)

    def repeat(self):
        """States, metrics of three steps on the same tasks, what the last compiled."""
        state, *rest = self.arguments
        states, metrics = [state], []
        for _ in range(3):
            with compilations() as compiled:
                state, now = self.run(states[-1], *rest)
            states.append(state)
            metrics.append(now)
        return states, metrics, compiled


@pytest.fixture(scope="session")
def make_step():
    """`make_step(case, aggregator)`: the step of a learner, small and downhill."""

    def made(case: Case, aggregator) -> Step:
        # Without momentum, but with its state: the last gradient.
        tx, parallel, key = optax.sgd(1e-3, momentum=0.0), Parallel(), jax.random.key(0)
        example, learner = case.source.example, case.learner
        state = init_state(learner, tx, aggregator, key=key, example=example)
        tasks = case.source.sample(key, jnp.arange(4), split="train")
        step = make_train_step(learner, tx, aggregator, parallel=parallel)
        chex.clear_trace_counter()
        run = jax.jit(chex.assert_max_traces(step, n=1))
        return Step(run, (parallel.replicate(state), parallel.split_rows(tasks), key))

    return made


@pytest.fixture(scope="session")
def mean_step(case, make_step) -> Step:
    """With one backward pass of the mean loss."""
    return make_step(case, mean_over_tasks())


@pytest.fixture(scope="session")
def surgery_step(case, make_step) -> Step:
    """With a gradient of every task."""
    return make_step(case, pcgrad(0))


@pytest.fixture(scope="session")
def trained(mean_step):
    """States and metrics of three steps, and what the last compiled."""
    return mean_step.repeat()
