"""Settings of a command's process: the only place that sets environment variables."""

import gc
import os

from jaxmeta.options import DataOptions, UserError

COLLECTED_AFTER = (20_000, 20, 20)
"""Thresholds of Python's garbage collector. JAX makes so many objects when it traces
that with Python's own, (700, 10, 10) in 3.11, a fifth of that time goes by looking
through them."""


def use(data: DataOptions) -> None:
    """Where data are looked for, and whether they may be downloaded.

    Raises:
      UserError: for a directory that is not there.
    """
    if data.data_dir is not None:
        if not data.data_dir.is_dir():
            raise UserError(
                f"--data-dir {data.data_dir} is not a directory; name the one that "
                "holds the data files."
            )
        os.environ["JAXMETA_DATA_DIR"] = str(data.data_dir)
    if data.download:
        os.environ["JAXMETA_DOWNLOAD"] = "1"


def start_jax() -> None:
    """Prepares this process, before JAX is imported: threads for its devices, memory.

    Raises:
      UserError: for a number of devices that is none.
    """
    gc.set_threshold(*COLLECTED_AFTER)
    devices = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
    if not devices.isdecimal() or int(devices) < 1:
        raise UserError(
            f"JAX_NUM_CPU_DEVICES must be a number >= 1, got {devices!r}; unset it."
        )
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if int(devices) > 1 or forced:
        # With fewer threads than devices, jax 0.10's collectives deadlock on the CPU.
        os.environ.setdefault("NPROC", "16")


def take_cores(place: int, num_processes: int) -> None:
    """Leaves this process its share of the CPU cores, where the system can do that.

    Before JAX starts its threads, of which there are then as many.

    Args:
      place: which of the processes this is, from 0.
      num_processes: that share the cores.
    """
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[place::num_processes] or cores)


def suit_physics() -> None:
    """What MuJoCo XLA likes; before JAX finds its devices.

    On a CPU it compiles in two thirds of the time and runs a quarter faster without
    XLA's newer fusions. Only jaxlib 0.10 knows the switch; later ones end a program
    that sets it.
    """
    import importlib.metadata

    # XLA otherwise says at length what it loads from the compilation cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    flags, switch = os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters"
    if importlib.metadata.version("jaxlib").startswith("0.10.") and switch not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {switch}=false".strip()
