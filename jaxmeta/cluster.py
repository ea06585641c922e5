"""Several processes as one program: meeting, and agreeing on what they run."""

import hashlib
import importlib.metadata
import json
import socket
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any

from jaxmeta.failures import say
from jaxmeta.options import ClusterOptions, UserError, one_line

HEARTBEAT_SECONDS = 10
"""A process that has been silent for so long is dead, and the others end, too."""

_SAY_AFTER_SECONDS = 15.0


def join(options: ClusterOptions) -> None:
    """Meets the other processes, if there are any; before JAX finds its devices.

    They meet where the options say, else where JAX finds that a cluster (Slurm, Cloud
    TPU, Kubernetes, Open MPI) has put them. Otherwise this process is alone.

    Raises:
      UserError: for options that do not fit, or if they cannot meet.
    """
    import jax

    given = (options.coordinator, options.num_processes, options.process_id)
    if any(value is not None for value in given):
        settings = _explicit(options)
    elif _on_a_cluster():
        settings = {}
    else:
        return
    waiting = threading.Timer(
        _SAY_AFTER_SECONDS,
        say,
        ["jaxmeta: still waiting for the other processes; are all of them started?"],
    )
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **settings
        )
    except (RuntimeError, ValueError) as error:
        where = options.coordinator or "the cluster's coordinator"
        raise UserError(
            f"cannot meet the other processes at {where} ({one_line(error)[:200]}); "
            "give every process the same address, with a port that is free, and a "
            "number of its own."
        ) from error
    finally:
        waiting.cancel()


def _explicit(options: ClusterOptions) -> dict[str, Any]:
    coordinator, count = options.coordinator, options.num_processes
    place = options.process_id
    if coordinator is None or count is None or place is None:
        raise UserError(
            "--coordinator, --num-processes and --process-id go together; give all "
            "three, or none to have JAX look for the cluster."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator must be HOST:PORT, such as 10.0.0.1:8476, got "
            f"{coordinator!r}."
        )
    if count < 1 or not 0 <= place < count:
        raise UserError(
            f"--process-id must be from 0 to {count - 1}, below --num-processes, got "
            f"{place} of {count}."
            if count > 0
            else f"--num-processes must be >= 1, got {count}."
        )
    settings = {
        "coordinator_address": coordinator,
        "num_processes": count,
        "process_id": place,
    }
    bind = "0.0.0.0"
    if host in ("127.0.0.1", "localhost"):  # nobody else need hear of it
        settings["coordinator_bind_address"] = coordinator
        bind = "127.0.0.1"
    if place == 0:
        _check_free(bind, int(port))
    return settings


def _check_free(host: str, port: int) -> None:
    """Raises UserError for a port that is taken, where JAX would crash."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise UserError(
                f"process 0 cannot have port {port} of this machine "
                f"({error.strerror}); give --coordinator another."
            ) from error


def _on_a_cluster() -> bool:
    """Whether JAX finds a cluster with more than this process."""
    from jax._src.clusters import ClusterEnv

    found = [
        kind
        for kind in ClusterEnv._cluster_types
        if not kind.opt_in_only_method and kind.is_env_present()
    ]
    return bool(found) and found[0].get_process_count() > 1


def agree(experiment: Any, options: ClusterOptions) -> None:
    """Makes sure that all processes run the same thing.

    JAX does not notice when they differ, not even when each was told another number of
    processes.

    Raises:
      UserError: naming what differs and in which process.
    """
    import jax

    if jax.process_count() == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    from jaxmeta.core.config import to_json

    config = to_json(experiment)
    told = {
        "the experiment": config,
        "the code": _code(),
        "jaxmeta": importlib.metadata.version("jaxmeta"),
        "jax": jax.__version__,
        "--num-processes": options.num_processes,
        "the data": _data(experiment),
    }
    digest = lambda value: hashlib.sha256(json.dumps(value).encode()).digest()
    ours = np.stack([np.frombuffer(digest(value), np.uint8) for value in told.values()])
    everybody = np.asarray(multihost_utils.process_allgather(ours))
    for i, name in enumerate(told):
        differ = np.flatnonzero((everybody[:, i] != everybody[0, i]).any(-1))
        if len(differ):
            raise UserError(
                f"{name} of process {differ[0]} differs from that of process 0; start "
                "all processes with the same command, code and data."
            )
    parallel = getattr(experiment, "parallel", None)
    spread = getattr(parallel, "backend", None) in ("pmap", "shard_map")
    if parallel is None or not spread or parallel.mesh.size < jax.device_count():
        raise UserError(
            f"{jax.process_count()} processes need an experiment that uses all their "
            "devices by parallel.backend shard_map, which this one does not; run it in "
            "one process."
        )


def _code() -> str:
    """A digest of the library's files, and of all that is loaded and not installed."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    files = {f"{p.relative_to(package)}": p for p in package.rglob("*.py")}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or ".").resolve()
        own = path.is_file() and path.suffix == ".py" and not _is_installed(path)
        if own and name != "__main__":
            files[name] = path
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _is_installed(path: Path) -> bool:
    of_python = Path(sysconfig.get_path("stdlib")).resolve()
    packages = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(packages) or path.is_relative_to(of_python)


def _data(experiment: Any) -> Any:
    """What a source says of its data, and checksums of all or of a task of them."""
    from jaxmeta.core.checkpoint import fingerprint
    from jaxmeta.core.task import DeviceSource, TaskSource

    source = getattr(experiment, "source", None)
    if not isinstance(source, TaskSource):  # an agent has an environment
        return None
    seen = source.load() if isinstance(source, DeviceSource) else source.example
    return [getattr(source, "data_used", None), fingerprint(seen)]
