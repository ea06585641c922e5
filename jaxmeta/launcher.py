"""What puts `jaxmeta train` on many machines; the program is the same everywhere.

Every target is a frozen dataclass whose fields are the options of
`jaxmeta launch TARGET`, and whose `render(job)` is the text of what would run: command
lines, a batch script or YAML. The templates are the files under `launch/`. This module
needs the standard library alone.
"""

import abc
import dataclasses
import re
import shlex
from pathlib import Path
from typing import ClassVar

_PACKAGE = Path(__file__).resolve().parent
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")

PREEMPTED = 42
"""The exit code that says: a checkpoint was written, start me again."""


def template_dir() -> Path:
    """`launch/` of an installed wheel, or of the checkout."""
    installed = _PACKAGE / "launch"
    return installed if installed.is_dir() else _PACKAGE.parent / "launch"


def fill(template: str, **values: object) -> str:
    """The text of a template, `{{name}}` replaced; a line that is left empty goes.

    Raises:
      KeyError: for a name without a value.

    Example:
      >>> import tempfile
      >>> fill("slurm.sbatch", name="x")
      Traceback (most recent call last):
      KeyError: 'nodes'
    """
    lines = (template_dir() / template).read_text(encoding="utf-8").splitlines()
    filled = []
    for line in lines:
        indent = re.match(r" *", line)
        assert indent is not None
        text = re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), line)
        # Of a value of several lines every one is indented as the first.
        text = text.replace("\n", f"\n{indent[0]}")
        if text.strip() or not line.strip():
            filled.append(text.rstrip())
    return "\n".join(filled) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training, wherever it runs.

    Attributes:
      config: the name of an experiment, or a Python file that every host can read.
      run_dir: where the run is kept; all hosts must see the same directory.
      overrides: further options of `jaxmeta train`.

    Example:
      >>> job = Job(config="msr-fc", run_dir="/runs/a b", overrides=("--steps", "9"))
      >>> print(job.line())
      jaxmeta train msr-fc --run-dir '/runs/a b' --steps 9
    """

    config: str
    run_dir: str
    overrides: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The command of one process."""
        start = ["jaxmeta", "train", self.config, "--run-dir", self.run_dir]
        return [*start, *self.overrides]

    def line(self, *more: str) -> str:
        """The command as a line for a shell, with further words as they are."""
        return " ".join([shlex.join(self.words()), *more])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target(abc.ABC):
    """A place to run."""

    program: ClassVar[tuple[str, ...]]
    """What is given the text on its standard input."""

    @abc.abstractmethod
    def render(self, job: Job) -> str:
        """Exactly what would run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(Target):
    """Processes on this machine: each with CPU devices, or with one of its GPUs.

    Raises:
      ValueError: for a number below 1.

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
        _at_least(self, num_processes=1, devices=1, port=0)

    def processes(self, job: Job) -> list[tuple[dict[str, str], list[str]]]:
        """Environment variables and command of every process."""
        meeting = [f"--coordinator=127.0.0.1:{self.port}"]
        meeting += [f"--num-processes={self.num_processes}"]
        found = []
        for i in range(self.num_processes):
            # Threads enough for jax 0.10's collectives, see `settings.start_jax`.
            cpu = {"NPROC": "16", "JAX_NUM_CPU_DEVICES": str(self.devices)}
            cpu["JAX_PLATFORMS"] = "cpu"
            environ = {"CUDA_VISIBLE_DEVICES": str(i)} if self.gpus else cpu
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
      ValueError: for a number below its limit, or a name that is no label.
    """

    program: ClassVar = ("sbatch",)

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
        _label(self.name)
        _at_least(self, nodes=1, gpus_per_node=0, cpus_per_task=1)

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
            "slurm.sbatch",
            name=self.name,
            nodes=self.nodes,
            directives="\n".join(lines),
            setup=self.setup,
            devices=",".join(map(str, range(max(1, self.gpus_per_node)))),
            command=job.line(),
        )


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part of a TPU pod.

    Attributes:
      accelerator: how GKE calls the kind.
      topology: chips along each axis.
      chips: of each host.
      hosts: how many.
    """

    accelerator: str
    topology: str
    chips: int
    hosts: int


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    *("8x8x16", "8x16x16", "16x16x16"),
)
# Kind: what its number counts for each chip, GKE's name, and the shapes there are.
_TPUS = {
    "v4": (2, "tpu-v4-podslice", _CUBES),
    "v5p": (2, "tpu-v5p-slice", _CUBES),
    "v5litepod": (1, "tpu-v5-lite-podslice", _FLAT),
    "v6e": (1, "tpu-v6e-slice", _FLAT),
    "tpu7x": (2, "tpu7x", _CUBES),
}
# Of Cloud TPU VMs: the image, by kind.
_IMAGES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
_CHIPS_OF_A_HOST = 4


def slice_of(tpu: str) -> Slice:
    """The shape of a slice by its name; v4, v5p and tpu7x count cores, two a chip.

    Raises:
      ValueError: for a kind or size that there is not.

    Example:
      >>> slice_of("v6e-16")
      Slice(accelerator='tpu-v6e-slice', topology='4x4', chips=4, hosts=4)
    """
    kind, _, size = tpu.rpartition("-")
    if kind not in _TPUS or not size.isdecimal():
        raise ValueError(
            f"tpu must be one of {', '.join(_TPUS)} and a size, as in v6e-16, got "
            f"{tpu!r}."
        )
    counted, accelerator, shapes = _TPUS[kind]
    by_size = {counted * _product(shape): shape for shape in shapes}
    if int(size) not in by_size:
        sizes = ", ".join(map(str, by_size))
        raise ValueError(f"the sizes of {kind} are {sizes}; got {tpu!r}.")
    chips = int(size) // counted
    hosts = max(1, chips // _CHIPS_OF_A_HOST)
    if shapes is _FLAT and chips == 8:  # these two kinds have hosts of eight, too
        hosts = 1
    return Slice(accelerator, by_size[int(size)], chips // hosts, hosts)


def _product(shape: str) -> int:
    sides = [int(side) for side in shape.split("x")]
    product = 1
    for side in sides:
        product *= side
    return product


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm(Target):
    """A Cloud TPU, v2 to v6e, by `gcloud`: made, installed on, trained on.

    Raises:
      ValueError: for a kind that the Cloud TPU API has not, or a name that is no label.
    """

    program: ClassVar = ("bash",)

    name: str = "jaxmeta"
    """Of the TPU: small letters, digits and dashes."""

    zone: str = "us-central2-b"
    """Where it is."""

    tpu: str = "v4-32"
    """Kind and size."""

    spot: bool = False
    """A cheaper one, that may be taken away."""

    package: str = "jaxmeta[tpu]"
    """What pip installs on every host: a version, or an address of a repository."""

    setup: str = ""
    """Shell commands on every host before the training, as to mount `run_dir`."""

    def __post_init__(self):
        _label(self.name)
        kind, _, size = self.tpu.rpartition("-")
        if kind not in _IMAGES or not size.isdecimal():
            raise ValueError(
                f"the Cloud TPU API has {', '.join(_IMAGES)}, each with a size, as in "
                f"v4-32, got {self.tpu!r}; TPU7x is reached by `jaxmeta launch gke`."
            )

    def render(self, job: Job) -> str:
        _absolute(job)
        kind, _, size = self.tpu.rpartition("-")
        where = f"{self.name} --zone={self.zone}"
        tpus = "gcloud compute tpus"
        ssh = f"{tpus} tpu-vm ssh {where} --worker=all --command="
        config, copy = job.config, ""
        if config.endswith(".py"):
            copy = (
                f"{tpus} tpu-vm scp {shlex.quote(config)} {self.name}: "
                f"--zone={self.zone} --worker=all"
            )
            job = dataclasses.replace(job, config=Path(config).name)
        install = [
            "python3 -m pip install --user uv",
            "~/.local/bin/uv venv --python 3.12 ~/jaxmeta",
            "~/.local/bin/uv pip install --python ~/jaxmeta "
            f"{shlex.quote(self.package)}",
        ]
        train = ["source ~/jaxmeta/bin/activate", self.setup, job.line()]
        remote = lambda commands: shlex.quote(" && ".join(filter(None, commands)))
        create = (
            f"{tpus} queued-resources create {where} --node-id={self.name} "
            f"--accelerator-type={self.tpu} --runtime-version={_IMAGES[kind]}"
        )
        cores = int(size) // (1 if kind in ("v5litepod", "v6e") else 2)
        return fill(
            "tpu_vm.sh",
            hosts=max(1, cores // _CHIPS_OF_A_HOST),
            tpu=self.tpu,
            create=create + " --spot" * self.spot,
            state=f"{tpus} queued-resources describe {where} "
            "--format='value(state.state)'",
            delete=f"{tpus} queued-resources delete {where} --force",
            copy=copy,
            install=ssh + remote(install),
            train=ssh + remote(train),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gke(Target):
    """A JobSet on Google's Kubernetes, by `kubectl`; the only route to TPU7x.

    Raises:
      ValueError: for a TPU that there is not, or a name that is no label.
    """

    program: ClassVar = ("kubectl", "apply", "-f", "-")

    image: str
    """The container's, with jaxmeta installed and the config in it."""

    name: str = "jaxmeta"
    """Of the JobSet: small letters, digits and dashes."""

    tpu: str = "v6e-16"
    """Kind and size."""

    claim: str = "jaxmeta-runs"
    """The PersistentVolumeClaim that all hosts write to."""

    mount: str = "/runs"
    """Where it is mounted; `run_dir` must be below."""

    restarts: int = 10
    """How often all hosts start again after a preemption or a kill."""

    setup: str = ""
    """Shell commands before the training."""

    def __post_init__(self):
        _label(self.name)
        _at_least(self, restarts=0)
        slice_of(self.tpu)

    def render(self, job: Job) -> str:
        mount = self.mount.rstrip("/")
        if not job.run_dir.startswith(f"{mount}/"):
            raise ValueError(
                f"run_dir must be below {mount}, the volume that all hosts see, got "
                f"{job.run_dir!r}."
            )
        part = slice_of(self.tpu)
        return fill(
            "gke_jobset.yaml",
            **dataclasses.asdict(part),
            tpu=self.tpu,
            name=self.name,
            image=self.image,
            claim=self.claim,
            mount=mount,
            restarts=self.restarts,
            setup=self.setup,
            command=job.line(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sky(Target):
    """A managed job of SkyPilot: TPUs up to v6e, GPUs of any cloud, or Slurm.

    Raises:
      ValueError: for a number below 1, a TPU that SkyPilot cannot reach, or a name that
        is no label.
    """

    program: ClassVar = ("sky", "jobs", "launch", "--yes")

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

    restarts: int = 10
    """How often it starts again after an error."""

    package: str = ""
    """What pip installs on every node; jaxmeta with the extra that suits the
    accelerators when not given."""

    setup: str = ""
    """Shell commands on every node before the training."""

    def __post_init__(self):
        _label(self.name)
        _at_least(self, nodes=1, restarts=0)
        if not self._is_tpu:
            return
        slice_of(self.accelerators.removeprefix("tpu-"))
        if "tpu7x" in self.accelerators:
            raise ValueError(
                "SkyPilot has TPUs up to v6e; TPU7x is reached by `jaxmeta launch gke`."
            )
        if self.nodes != 1:
            raise ValueError(f"a TPU is one node with all its hosts, got {self.nodes}.")

    @property
    def _is_tpu(self) -> bool:
        return self.accelerators.startswith("tpu")

    def render(self, job: Job) -> str:
        _absolute(job)
        package = self.package or f"jaxmeta[{'tpu' if self._is_tpu else 'cuda12'}]"
        asked = {
            "infra": self.infra,
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
        return fill(
            "sky.yaml",
            what=where,
            name=self.name,
            nodes=self.nodes,
            resources="\n".join(f"{k}: {v}" for k, v in asked.items() if v),
            restarts=self.restarts,
            workdir="workdir: ." if file else "",
            setup=f"pip install {shlex.quote(package)}\n{self.setup}".rstrip(),
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


def _at_least(target: Target, **limits: int) -> None:
    for name, low in limits.items():
        if (value := getattr(target, name)) < low:
            raise ValueError(f"{name} must be >= {low}, got {value}.")


def _absolute(job: Job) -> None:
    if not job.run_dir.startswith("/"):
        raise ValueError(
            "run_dir must be an absolute path that all hosts see, as of a file server "
            f"or a mounted bucket, got {job.run_dir!r}."
        )


def _label(name: str) -> None:
    if not _LABEL.fullmatch(name):
        raise ValueError(
            "name must be small letters, digits and dashes, 40 at most, beginning with "
            f"a letter, got {name!r}."
        )
