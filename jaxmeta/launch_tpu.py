"""Cloud TPUs, by their own API or by Kubernetes."""

import dataclasses
import math
import posixpath
import re
import shlex
from pathlib import Path
from typing import ClassVar

from jaxmeta.launch_job import Job, Target, absolute, at_least, fill, label, lines, word


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
CHIPS_OF_A_HOST = 4
"""Of a slice with several hosts."""


def slice_of(tpu: str) -> Slice:
    """The shape of a slice by its name; v4, v5p and tpu7x count cores, two a chip.

    Raises:
      ValueError: for a kind or size that there is not.

    Example:
      >>> slice_of("v6e-16")
      Slice(accelerator='tpu-v6e-slice', topology='4x4', chips=4, hosts=4)
    """
    kind, _, size = tpu.rpartition("-")
    if kind not in _TPUS or not re.fullmatch("[0-9]+", size):
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
    hosts = max(1, chips // CHIPS_OF_A_HOST)
    if shapes is _FLAT and chips == 8:  # these two kinds have hosts of eight, too
        hosts = 1
    return Slice(accelerator, by_size[int(size)], chips // hosts, hosts)


def _product(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


_V2_CORES = (8, 32, 128, 256, 512)
_CORES = {"v2": _V2_CORES, "v3": (*_V2_CORES, 64, 1024, 2048)}

# Of Cloud TPU VMs: the image, by kind.
_IMAGES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


def hosts_of(tpu: str) -> int:
    """How many hosts a Cloud TPU has; v2 and v3 count cores, eight a host.

    Raises:
      ValueError: for a kind or size that the Cloud TPU API has not.

    Example:
      >>> hosts_of("v3-32")
      4
    """
    kind, _, size = tpu.rpartition("-")
    if kind not in _IMAGES or not re.fullmatch("[0-9]+", size):
        raise ValueError(
            f"the Cloud TPU API has {', '.join(_IMAGES)}, each with a size, as in "
            f"v4-32, got {tpu!r}; TPU7x is reached by `jaxmeta launch gke`."
        )
    if kind not in _CORES:
        return slice_of(tpu).hosts
    if int(size) not in _CORES[kind]:
        sizes = ", ".join(map(str, sorted(_CORES[kind])))
        raise ValueError(f"the sizes of {kind} are {sizes}; got {tpu!r}.")
    return int(size) // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm(Target):
    """A Cloud TPU, v2 to v6e, by `gcloud`: made, installed on, trained on.

    Raises:
      ValueError: for a kind or size that the Cloud TPU API has not, or a name or zone
        that is none.
    """

    program: ClassVar = ("bash",)
    template: ClassVar = "tpu_vm.sh"

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
        label(self.name)
        word(self, "zone")
        hosts_of(self.tpu)

    def render(self, job: Job) -> str:
        absolute(job)
        kind, hosts = self.tpu.rpartition("-")[0], hosts_of(self.tpu)
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
        # By lines, of which one may end with a comment.
        remote = lambda lines: shlex.quote("\n".join(filter(None, ["set -e", *lines])))
        create = (
            f"{tpus} queued-resources create {where} --node-id={self.name} "
            f"--accelerator-type={self.tpu} --runtime-version={_IMAGES[kind]}"
        )
        return fill(
            self.template,
            hosts=f"{hosts} host{'s' * (hosts > 1)}",
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
      ValueError: for a TPU that there is not, or a name, image or mount that is none.
    """

    program: ClassVar = ("kubectl", "apply", "-f")
    template: ClassVar = "gke_jobset.yaml"

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
        label(self.name)
        word(self, "image", "claim")
        at_least(self, restarts=0)
        slice_of(self.tpu)
        if not self.image:
            raise ValueError("image must name a container with jaxmeta in it, got ''.")
        if not re.fullmatch(r"(/[\w.-]+)+/?", self.mount):
            raise ValueError(
                f"mount must be an absolute path, as /runs, got {self.mount!r}."
            )

    def render(self, job: Job) -> str:
        mount = self.mount.rstrip("/")
        if not posixpath.normpath(job.run_dir).startswith(f"{mount}/"):
            raise ValueError(
                f"run_dir must be below {mount}, the volume that all hosts see, got "
                f"{job.run_dir!r}."
            )
        part = slice_of(self.tpu)
        return fill(
            self.template,
            **dataclasses.asdict(part),
            tpu=self.tpu,
            name=self.name,
            image=self.image,
            claim=self.claim,
            mount=mount,
            restarts=self.restarts,
            setup=lines(self.setup),
            command=job.line(),
        )
