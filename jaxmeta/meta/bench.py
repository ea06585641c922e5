"""What every meta-gradient costs: time, and temporary memory as XLA plans it.

One task of 5-way Omniglot's shape with the four-block network of 32 channels: as many
query images as support images, the gradient of start, rates and all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Examples, Task
from jaxmeta.core.timing import median_seconds, unit
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.meta_gradient import (
    FirstOrder,
    Implicit,
    MetaGradient,
    MixFlow,
    Truncated,
    Unrolled,
)
from jaxmeta.networks.conv import Conv4

WAYS, SHOTS, SIDE, FEATURES = 5, (1, 5), 28, 32
STEPS = (1, 5, 20, 50)
"""Inner steps that are measured."""

CHOICES: dict[str, MetaGradient] = {
    "unrolled(remat=False)": Unrolled(remat=False),
    "unrolled": Unrolled(),
    "mixflow": MixFlow(),
    "truncated(5)": Truncated(steps=5),
    "implicit": Implicit(),
    "first_order": FirstOrder(),
}
"""What is measured; the first is what the others are compared with."""


def measure(
    inner_steps: Sequence[int] = (),
    *,
    shots: Sequence[int] = (),
    features: int = FEATURES,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Compiles and runs every choice.

    Args:
      inner_steps: how many, each >= 1; `STEPS` when empty.
      shots: images of a class; `SHOTS` when empty.
      features: channels of the network.
      say: told what is being compiled.

    Returns:
      `device`; `time`, what a second is; `rows`, one object a program: `shots`,
      `inner_steps`, `choice`, `seconds`, `bytes`, and both over those of the first
      choice.

    Raises:
      ValueError: for fewer than one step.
    """
    inner_steps = tuple(dict.fromkeys(inner_steps)) or STEPS
    if min(inner_steps) < 1:
        raise ValueError(f"inner_steps must be >= 1, got {min(inner_steps)}.")
    rows = []
    for shot in shots or SHOTS:
        for steps in inner_steps:
            say(f"compiling {steps} inner steps on {WAYS} x {shot} images")
            programs = [
                _program(choice, steps, shot, features) for choice in CHOICES.values()
            ]
            seconds = median_seconds([run for run, _ in programs])
            sizes = [size for _, size in programs]
            rows += [
                {
                    "shots": shot,
                    "inner_steps": steps,
                    "choice": name,
                    "seconds": spent,
                    "bytes": size,
                    "time_ratio": spent / seconds[0],
                    "memory_ratio": size / sizes[0],
                }
                for name, spent, size in zip(CHOICES, seconds, sizes, strict=True)
            ]
    device = jax.devices()[0].device_kind
    return {"device": device, "time": unit(), "rows": rows}


def lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """What was measured as lines of text, the heading first."""
    table = [("shots", "steps", "meta-gradient", found["time"], "x", "MiB", "x")]
    for row in found["rows"]:
        table.append(
            (
                str(row["shots"]),
                str(row["inner_steps"]),
                row["choice"],
                f"{row['seconds']:.3f}",
                f"{row['time_ratio']:.2f}",
                f"{row['bytes'] / 2**20:.1f}",
                f"{row['memory_ratio']:.2f}",
            )
        )
    return table


def title(found: dict[str, Any]) -> str:
    """What the lines are of."""
    return f"Meta-gradient of one {WAYS}-way task on {found['device']}"


def _program(
    choice: MetaGradient, inner_steps: int, shots: int, features: int
) -> tuple[Callable[[], Any], int]:
    """A compiled meta-gradient, and its temporary memory in bytes."""
    learner = Maml(
        network=Conv4(features=features, num_classes=WAYS),
        objective=cross_entropy,
        inner_steps=inner_steps,
        inner_rate=0.05,
        rates="fixed" if isinstance(choice, Implicit) else "per_tensor",
        meta_gradient=choice,
    )
    targets = jnp.repeat(jnp.arange(WAYS, dtype=jnp.int32), shots)
    shape = (WAYS * shots, SIDE, SIDE, 1)
    support, query = (
        Examples(jax.random.uniform(key, shape), targets)
        for key in jax.random.split(jax.random.key(0))
    )
    task, key = Task(support, query, jnp.array(0)), jax.random.key(1)
    params, model_state = learner.init(key, task)
    loss = lambda params, task: learner.loss(params, model_state, task, key)[0]
    compiled = jax.jit(jax.grad(loss)).lower(params, task).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    run = lambda: jax.block_until_ready(compiled(params, task))
    return run, memory.temp_size_in_bytes
