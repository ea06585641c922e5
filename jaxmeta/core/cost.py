"""What an experiment would cost, found by compiling one step and running none."""

import time

import jax
import jax.numpy as jnp

from jaxmeta.core.experiment import Experiment
from jaxmeta.core.fit import shapes_of_state
from jaxmeta.core.train import make_train_step


def estimate(experiment: Experiment) -> list[str]:
    """Parameters, memory and compile time of an experiment, a line each."""
    aggregator, tx = experiment.optimizer.make()
    state = shapes_of_state(experiment)
    step = make_train_step(
        experiment.learner,
        tx,
        aggregator,
        parallel=experiment.parallel,
        precision=experiment.precision,
        step_metrics=experiment.step_metrics,
    )
    slots = jnp.arange(experiment.tasks_per_step)
    key = jax.random.key(experiment.seed)
    tasks = experiment.source.sample(key, slots, split="train")
    tasks = experiment.parallel.split_rows(tasks)
    started = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, tasks, key).compile()
    seconds = time.perf_counter() - started
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    mib = lambda num_bytes: f"{num_bytes / 2**20:.1f} MiB"
    lines = [f"parameters: {num_params:,}"]
    if memory is not None:
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        held -= memory.alias_size_in_bytes  # the state is given away and comes back
        lines.append(
            f"memory per device: {mib(memory.temp_size_in_bytes)} temporary, "
            f"{mib(held)} arguments and results of one step"
        )
    if "flops" in cost:
        lines.append(f"arithmetic: {cost['flops'] / 1e9:.3g} GFLOP a step")
    lines.append(f"compile: {seconds:.1f} s for one step")
    return lines
