"""However devices and processes share the tasks, a run takes the same steps.

MSR, ARM-CML and PCGrad, twenty steps each, on 1 device, on 8 of one process and on 4 of
each of two.
"""

import os
import subprocess
import sys

import numpy as np

from jaxmeta.supervise import free_port

STEPS = 20
PROGRAM = """
import sys
import jax, numpy as np, optax
from jaxmeta import Experiment, Maml, MSRDense, Optimizer, Parallel
from jaxmeta.cluster import join
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.data.digit_tasks import TurnedDigits
from jaxmeta.data.translation import TranslationSource
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.networks.convnet import ContextNet
from jaxmeta.networks.mlp import MLP, Encoder
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.options import ClusterOptions
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.surgery import pcgrad

out, backends, *cluster = sys.argv[1:]
if cluster:
    where, count, place = cluster
    join(ClusterOptions(
        coordinator=where, num_processes=int(count), process_id=int(place)
    ))

SETTINGS = {
    "shard_map": Parallel(),
    "deterministic": Parallel(deterministic=True),
    "pmap": Parallel(backend="pmap"),
}
# Adam would divide by the size of every gradient, and the smallest are all rounding.
METHODS = {
    "MSR": (
        Maml(network=MSRDense(features=5, inner_dim=3), inner_steps=2),
        TranslationSource(input_size=7, num_query=3),
        Optimizer(transform=optax.sgd, learning_rate=0.001),
    ),
    "ARM-CML": (
        ArmCml(
            network=NormMLP(features=(6,), num_classes=10),
            context=ContextNet(channels=1, width=2),
        ),
        RotatedDigits(image_size=8, points_per_set=8, sets_per_task=1),
        Optimizer(transform=optax.sgd, learning_rate=0.02),
    ),
    "PCGrad": (
        HardSharing(body=Encoder(features=(8,)), head=MLP(features=(10,))),
        TurnedDigits(num_tasks=8, num_examples=3, origin="digits"),
        Optimizer(aggregator=lambda: pcgrad(0), transform=optax.sgd, learning_rate=0.1),
    ),
}
found = {}
for name, (learner, source, optimizer) in METHODS.items():
    for backend in backends.split(","):
        experiment = Experiment(
            learner=learner, source=source, optimizer=optimizer,
            parallel=SETTINGS[backend], tasks_per_step=8, steps=STEPS,
        )
        state, advance = initial_state(experiment), make_advance(experiment)
        losses = []
        for _ in range(STEPS):
            state, metrics = advance(state, 1)
            losses.append(metrics["loss"].compute())
        found[f"{name} {backend} losses"] = np.array(losses)
        found[f"{name} {backend} params"] = np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]
        )
if jax.process_index() == 0:
    np.savez(out, **found)
""".replace("STEPS", str(STEPS))


def _run(directory, name, backends, devices, processes=1):
    """What the program found, in so many processes of so many devices."""
    port = free_port()
    out, log = directory / f"{name}.npz", directory / f"{name}.txt"
    environ = {
        "NPROC": "16",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    with log.open("w") as file:
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(out), backends]
                + [f"127.0.0.1:{port}", str(processes), str(i)] * (processes > 1),
                env=os.environ | environ,
                stdout=file,
                stderr=file,
            )
            for i in range(processes)
        ]
        codes = [process.wait() for process in running]
    assert codes == [0] * processes, log.read_text()[-3000:]
    return dict(np.load(out))


def _far(a, b):
    """The largest relative difference."""
    return float(np.max(np.abs(a - b) / np.abs(b)))


def test_steps_are_the_same(tmp_path):
    """One test, so that the programs run once, whoever runs the tests beside it."""
    alone = _run(tmp_path, "alone", "shard_map", 1)
    eight = _run(tmp_path, "eight", "shard_map,deterministic,pmap", 8)
    pair = _run(tmp_path, "pair", "shard_map,deterministic,pmap", 4, processes=2)
    for method in ("MSR", "ARM-CML", "PCGrad"):
        losses = f"{method} shard_map losses"
        assert len(set(eight[losses])) == STEPS
        # Two processes against one.
        for backend in ("shard_map", "pmap"):
            name = f"{method} {backend} losses"
            assert _far(pair[name], eight[name]) <= 1e-6, name
        for what in ("losses", "params"):
            name = f"{method} deterministic {what}"
            np.testing.assert_array_equal(pair[name], eight[name], err_msg=name)
        # Eight devices against one.
        for backend in ("shard_map", "pmap"):
            name = f"{method} {backend} losses"
            assert _far(eight[name], alone[losses]) <= 1e-5, name
