"""What puts `jaxmeta train` on many machines; the program is the same everywhere.

Every target is a frozen dataclass whose fields are the options of
`jaxmeta launch TARGET`, and whose `render(job)` is the text of what would run: command
lines, a batch script or YAML. The templates are the files under `launch/`.
"""

import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import ClassVar

from jaxmeta.launch_job import Job, Target, absolute, at_least, fill, label, lines, word
from jaxmeta.launch_tpu import Gke, TpuVm, hosts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(Target):
    """Processes on this machine: each with CPU devices, or with one of its GPUs.

    Raises:
      ValueError: for a number below 1, a port that there is not, or fewer GPUs in
        `$CUDA_VISIBLE_DEVICES` than processes.

    Example:
      >>> print(Local(port=1234).render(Job(config="msr-fc", run_dir="runs/x")))
      NPROC=16 JAX_NUM_CPU_DEVICES=1 JAX_PLATFORMS=cpu jaxmeta train msr-fc ...
    """

    num_processes: int = 2
    """How many."""

    devices: int = 1
    """CPU devices of each process."""

    gpus: bool = False
    """Give process i the GPU i in place of CPU devices."""

    port: int = 0
    """Where they meet, on the loopback device; 0 takes one that is free."""

    def __post_init__(self):
        at_least(self, num_processes=1, devices=1, port=0)
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, got {self.port}.")
        if self.gpus:
            self._gpus()

    def _gpus(self) -> list[str]:
        """A GPU for every process, of those that may be seen."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if seen is None:
            return [str(i) for i in range(self.num_processes)]
        found = [name for name in seen.split(",") if name]
        if len(found) < self.num_processes:
            raise ValueError(
                f"num_processes must be at most {len(found)}, the GPUs in "
                f"$CUDA_VISIBLE_DEVICES ({seen!r}), got {self.num_processes}."
            )
        return found

    def processes(self, job: Job) -> list[tuple[dict[str, str], list[str]]]:
        """Environment variables and command of every process."""
        meeting = [f"--coordinator=127.0.0.1:{self.port}"]
        meeting += [f"--num-processes={self.num_processes}"]
        found = []
        for i in range(self.num_processes):
            # Threads enough for jax 0.10's collectives, see `settings.start_jax`.
            cpu = {"NPROC": "16", "JAX_NUM_CPU_DEVICES": str(self.devices)}
            cpu["JAX_PLATFORMS"] = "cpu"
            environ = {"CUDA_VISIBLE_DEVICES": self._gpus()[i]} if self.gpus else cpu
            found.append((environ, [*job.words(), *meeting, f"--process-id={i}"]))
        return found

    def render(self, job: Job) -> str:
        lines = []
        for environ, words in self.processes(job):
            sets = [f"{name}={value}" for name, value in environ.items()]
            lines.append(" ".join([*sets, shlex.join(words), "&"]))
        return "\n".join([*lines, "wait"]) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm(Target):
    """A batch job of one process a node; needs `sbatch` here and a shared directory.

    Raises:
      ValueError: for a number below its limit, or a name, time, partition or account
        that is none.
    """

    program: ClassVar = ("sbatch",)
    template: ClassVar = "slurm.sbatch"

    name: str = "jaxmeta"
    """Of the job: small letters, digits and dashes."""

    nodes: int = 1
    """How many."""

    gpus_per_node: int = 8
    """GPUs of each; 0 asks for none."""

    cpus_per_task: int = 16
    """Cores of each node."""

    time: str = "24:00:00"
    """At most so long, as Slurm writes it; two minutes earlier the job saves itself."""

    partition: str = ""
    """The cluster's own when not given."""

    account: str = ""
    """The cluster's own when not given."""

    setup: str = "source .venv/bin/activate"
    """Shell commands before the training, that put `jaxmeta` on the PATH."""

    def __post_init__(self):
        label(self.name)
        word(self, "partition", "account")
        at_least(self, nodes=1, gpus_per_node=0, cpus_per_task=1)
        if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}|UNLIMITED", self.time):
            raise ValueError(
                "time must be minutes, hours:minutes:seconds or days-hours, as in "
                f"24:00:00, got {self.time!r}."
            )

    def render(self, job: Job) -> str:
        asked = {
            "gpus-per-node": self.gpus_per_node,
            "cpus-per-task": self.cpus_per_task,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
        }
        lines = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value]
        return fill(
            self.template,
            name=self.name,
            nodes=self.nodes,
            directives="\n".join(lines),
            setup=self.setup,
            devices=",".join(map(str, range(max(1, self.gpus_per_node)))),
            command=job.line(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sky(Target):
    """A managed job of SkyPilot: TPUs up to v6e, GPUs of any cloud, or Slurm.

    Raises:
      ValueError: for a number below 1, a TPU that SkyPilot cannot reach, or a name,
        accelerator or place that is none.
    """

    program: ClassVar = ("sky", "jobs", "launch", "--yes")
    template: ClassVar = "sky.yaml"

    name: str = "jaxmeta"
    """Of the job: small letters, digits and dashes."""

    accelerators: str = "H100:8"
    """Of every node: GPUs and how many, or a TPU as in tpu-v6e-16."""

    nodes: int = 1
    """How many; 1 for a TPU, however many hosts it has."""

    infra: str = ""
    """Where, as in gcp, kubernetes or slurm/CLUSTER; the cheapest when not given."""

    spot: bool = False
    """Cheaper machines, that may be taken away."""

    package: str = ""
    """What pip installs on every node; jaxmeta with the extra that suits the
    accelerators when not given."""

    setup: str = ""
    """Shell commands on every node before the training."""

    def __post_init__(self):
        label(self.name)
        word(self, "infra")
        at_least(self, nodes=1)
        if not re.fullmatch(r"[A-Za-z][\w-]*(:\d+(\.\d+)?)?", self.accelerators):
            raise ValueError(
                "accelerators must be a name and how many, as in H100:8, or a TPU, as "
                f"in tpu-v6e-16, got {self.accelerators!r}."
            )
        if not self._is_tpu:
            return
        hosts_of(self.accelerators.removeprefix("tpu-"))
        if self.nodes != 1:
            raise ValueError(f"a TPU is one node with all its hosts, got {self.nodes}.")

    @property
    def _is_tpu(self) -> bool:
        return self.accelerators.startswith("tpu")

    def render(self, job: Job) -> str:
        absolute(job)
        package = self.package or f"jaxmeta[{'tpu' if self._is_tpu else 'cuda12'}]"
        asked = {
            "infra": f'"{self.infra}"' if self.infra else "",
            "accelerators": self.accelerators,
            "use_spot": "true" * self.spot,
        }
        where = (
            "A TPU that JAX finds by itself"
            if self._is_tpu
            else (
                f"{self.nodes} nodes, one process each"
                if self.nodes > 1
                else "One node"
            )
        )
        meeting = (
            '--coordinator="$(echo "$SKYPILOT_NODE_IPS" | head -n1):8476"',
            '--num-processes="$SKYPILOT_NUM_NODES"',
            '--process-id="$SKYPILOT_NODE_RANK"',
        )
        file = job.config.endswith(".py")
        if file:
            path, here = Path(job.config).resolve(), Path.cwd()
            if not path.is_relative_to(here):
                raise ValueError(
                    "SkyPilot brings this directory and what is below it to the nodes; "
                    f"CONFIG must be there, got {job.config!r}."
                )
            job = dataclasses.replace(job, config=str(path.relative_to(here)))
        return fill(
            self.template,
            what=where,
            name=self.name,
            nodes=self.nodes,
            resources="\n".join(f"{k}: {v}" for k, v in asked.items() if v),
            workdir="workdir: ." if file else "",
            setup=f"pip install {shlex.quote(package)}\n{lines(self.setup)}".rstrip(),
            command=job.line(*(meeting if self.nodes > 1 else ())),
        )


TARGETS: dict[str, type[Target]] = {
    "local": Local,
    "slurm": Slurm,
    "tpu-vm": TpuVm,
    "gke": Gke,
    "sky": Sky,
}
"""By their names on the command line."""
