"""Where training stops scaling: a prediction from compiled programs, run nowhere.

One outer step of each learner is compiled for 1, 8, 64, ... devices with as many tasks
on every device (weak scaling). What devices say to each other is read from the compiled
program, what they compute from XLA's count of its arithmetic, and both become seconds
by the published figures of chips (`core.chips`):

  step(n) = FLOP(n) / (utilisation x peak) + sum of (bytes / bandwidth + hops x latency)
  efficiency(n) = step(1) / step(n)

A utilisation of 1, with nothing hidden behind anything, is the hardest case for
communication: a slower chip waits for a smaller share of its time. Left out are memory,
what it takes to start a kernel or a round of a loop, the input, and links that are
shared or not all used.
Programs are compiled for the CPU; other compilers may join or split exchanges.
"""

import json
import math
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta.core.aggregate import TaskAggregator, mean_over_tasks
from jaxmeta.core.chips import CHIPS
from jaxmeta.core.collectives import Collective, collectives
from jaxmeta.core.hlo import extra_flops
from jaxmeta.core.learner import Learner
from jaxmeta.core.mesh import TASKS
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.task import Examples, Task
from jaxmeta.core.train import init_state, make_train_step
from jaxmeta.core.types import Array
from jaxmeta.data.groups import Points
from jaxmeta.meta.maml import Maml
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.networks.mlp import MLP, Encoder
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.surgery import pcgrad
from jaxmeta.symmetry.conv4 import MSRConv4

DEVICES = (1, 8, 64, 256)
MOST_DEVICES = 1024
"""Programs for more were never compiled."""


class Program(NamedTuple):
    """What is compiled.

    Attributes:
      learner: the method.
      aggregator: between tasks.
      example: one task, of `jax.ShapeDtypeStruct`.
      tasks_per_device: >= 1.
    """

    learner: Learner
    aggregator: TaskAggregator
    example: Task
    tasks_per_device: int


class StepCost(NamedTuple):
    """What one outer step costs a device.

    Attributes:
      flops: of arithmetic, loops counted as often as they go round.
      exchanges: with other devices.
    """

    flops: float
    exchanges: list[Collective]

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends."""
        return math.fsum(each.times * each.wire_bytes for each in self.exchanges)


def msr_conv4() -> Program:
    """MSR: four blocks with Kronecker symmetry matrices, Omniglot's 5-way 1-shot."""
    return _few_shot(MSRConv4())


def maml_conv4() -> Program:
    """MAML: the network of `configs/maml_omniglot.py`, half its tasks a device."""
    return _few_shot(Conv4())


def arm_cml() -> Program:
    """ARM-CML: the networks of `configs/arm_mnist_writers.py`, its batch a device."""
    sets = (6, 50)

    def task():
        numbers, there = jnp.zeros(sets, int), jnp.ones(sets, bool)
        return Task((), Points(_images(*sets), numbers, numbers, there), jnp.array(0))

    learner = ArmCml(
        network=ConvNet(num_classes=10), context=ContextNet(channels=12, width=64)
    )
    return Program(learner, mean_over_tasks(), jax.eval_shape(task), 1)


def multitask_mean() -> Program:
    """One network of two wide layers for all tasks, 64 images of each, their mean."""
    learner = HardSharing(body=Encoder(features=(512, 512)), head=MLP(features=(10,)))
    task = lambda: Task((), _labelled(64), jnp.array(0))
    return Program(learner, mean_over_tasks(), jax.eval_shape(task), 4)


def multitask_pcgrad() -> Program:
    """The same with PCGrad, which must see the gradients of all tasks."""
    return multitask_mean()._replace(aggregator=pcgrad(0))


PROGRAMS: dict[str, str] = {
    "MSR Conv4": "jaxmeta.scaling:msr_conv4",
    "MAML Conv4": "jaxmeta.scaling:maml_conv4",
    "ARM-CML": "jaxmeta.scaling:arm_cml",
    "multitask": "jaxmeta.scaling:multitask_mean",
    "PCGrad": "jaxmeta.scaling:multitask_pcgrad",
}
"""What is measured: where a function lies that makes a `Program`."""


def step_cost(program: Program, num_tasks: int) -> StepCost:
    """Compiles one outer step over all devices of this process; nothing is allocated.

    Args:
      program: what is compiled; its `tasks_per_device` is not looked at.
      num_tasks: of the whole batch, a multiple of the number of devices.

    Example:
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> example = jax.eval_shape(lambda: smoke_source().example)
      >>> small = Program(smoke_learner(), mean_over_tasks(), example, 1)
      >>> {each.kind for each in step_cost(small, 8).exchanges} <= {"all-reduce"}
      True
    """
    parallel, tx = Parallel(), optax.adam(1e-3)
    learner, aggregator = program.learner, program.aggregator

    def start(key):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), program.example)
        return init_state(learner, tx, aggregator, key=key, example=zeros)

    def place(leaf, spec, *leading):
        sharding = NamedSharding(parallel.mesh, spec)
        return jax.ShapeDtypeStruct(
            (*leading, *leaf.shape), leaf.dtype, sharding=sharding
        )

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.tree.map(lambda x: place(x, P()), jax.eval_shape(start, key))
    tasks = jax.tree.map(lambda x: place(x, P(TASKS), num_tasks), program.example)
    step = make_train_step(learner, tx, aggregator, parallel=parallel)
    lowered = parallel.jit_step(step, state).lower(state, tasks, key)
    # What LLVM makes of the program changes neither what is said nor what is computed.
    quick = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }
    compiled = lowered.compile(compiler_options=quick)
    text, cost = compiled.as_text(), compiled.cost_analysis()
    assert text is not None
    assert cost is not None
    return StepCost(cost["flops"] + extra_flops(text), collectives(text))


def measure(
    devices: Sequence[int] = (),
    *,
    utilisation: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Compiles every program for every number of devices, each in a process.

    Args:
      devices: how many, each from 1 to `MOST_DEVICES`; `DEVICES` when empty. One device
        is always among them, since the others are compared with it.
      utilisation: share of a chip's peak at which it computes, in (0, 1].
      say: told what is being compiled.

    Returns:
      `utilisation`; `rows`, one object a program and number of devices: `learner`,
      `devices`, `tasks_per_device`, `flops` of a step and device, `exchanges` (`kind`,
      `num_bytes`, `group_size`, `times`), `wire_bytes`, what a device sends, and
      `seconds` and `efficiency` by chip.

    Raises:
      ValueError: for a number of devices or a utilisation out of range.
      RuntimeError: with the last line of a process that failed.
    """
    devices = tuple(sorted({1, *devices})) if devices else DEVICES
    for count in devices:
        if not 1 <= count <= MOST_DEVICES:
            raise ValueError(
                f"devices must be from 1 to {MOST_DEVICES}, got {count}; programs are "
                "compiled for that many pretended CPU devices."
            )
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation must be in (0, 1], got {utilisation}.")
    rows = []
    for name, address in PROGRAMS.items():
        alone: dict[str, float] = {}
        for count in devices:
            say(f"compiling {name} for {count} devices")
            row, cost = _compiled(address, count)
            seconds = {chip: step_seconds(cost, chip, utilisation) for chip in CHIPS}
            alone = alone or seconds
            efficiency = {chip: alone[chip] / seconds[chip] for chip in CHIPS}
            row |= {"wire_bytes": cost.wire_bytes}
            row |= {"seconds": seconds, "efficiency": efficiency}
            rows.append({"learner": name, "devices": count, **row})
    return {"utilisation": utilisation, "rows": rows}


def step_seconds(cost: StepCost, chip: str, utilisation: float = 1.0) -> float:
    """Predicted seconds of a step; nothing is hidden behind anything.

    Args:
      cost: of the step.
      chip: one of `CHIPS`.
      utilisation: share of its peak, in (0, 1].

    Example:
      >>> step_seconds(StepCost(197e12, []), "v5e", utilisation=0.5)
      2.0
    """
    spent = sum(CHIPS[chip].exchange_seconds(each) for each in cost.exchanges)
    return CHIPS[chip].compute_seconds(cost.flops) / utilisation + spent


def lines(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What was predicted as lines of text, the heading first."""
    table = [("learner", "devices", "GFLOP", "exch.", "KiB", *CHIPS)]
    for row in found["rows"]:
        table.append(
            (
                row["learner"],
                str(row["devices"]),
                f"{row['flops'] / 1e9:,.1f}",
                f"{sum(each['times'] for each in row['exchanges']):.0f}",
                f"{row['wire_bytes'] / 1024:,.0f}",
                *(_percent(row["efficiency"][chip]) for chip in CHIPS),
            )
        )
    return table


def title(found: Mapping[str, Any]) -> str:
    """What the lines are of."""
    return (
        "Predicted, not measured: efficiency of weak scaling where a chip computes at "
        f"{_percent(found['utilisation'])} of its bf16 peak; GFLOP, exchanges and KiB "
        "sent are of a step and device"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _few_shot(network: nn.Module) -> Program:
    learner = Maml(network=network, objective=cross_entropy)
    task = lambda: Task(_labelled(5), _labelled(25), jnp.array(0))
    return Program(learner, mean_over_tasks(), jax.eval_shape(task), 4)


def _labelled(num_images: int) -> Examples:
    return Examples(_images(num_images), jnp.zeros(num_images, int))


def _images(*leading: int) -> Array:
    return jnp.zeros((*leading, 28, 28, 1))


def _compiled(address: str, devices: int) -> tuple[dict[str, Any], StepCost]:
    """What a process with so many devices says of a program."""
    code = f"from jaxmeta.scaling import tell; tell({address!r})"
    pretended = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NPROC": "16", **pretended},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise RuntimeError(f"compiling {address} for {devices} devices failed: {last}")
    row = json.loads(done.stdout.splitlines()[-1])
    exchanges = [Collective(**each) for each in row["exchanges"]]
    return row, StepCost(row["flops"], exchanges)


def tell(address: str) -> None:
    """Prints the cost of a step of a program, as JSON, over all devices there are.

    Args:
      address: `module:function`; what it returns is the `Program`.
    """
    program = pkgutil.resolve_name(address)()
    per_device = program.tasks_per_device
    cost = step_cost(program, per_device * jax.device_count())
    exchanges = [each._asdict() for each in cost.exchanges]
    told = {"tasks_per_device": per_device, "flops": cost.flops}
    print(json.dumps({**told, "exchanges": exchanges}))
