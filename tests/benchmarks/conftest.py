"""One core, one device, no workers; tables at the end. Before JAX is imported.

With JAXMETA_BENCH_CORES=2, two cores and, where a benchmark takes `seconds`, the clock.
"""

import os
import time

import pytest

CORES = int(os.environ.get("JAXMETA_BENCH_CORES", "1"))
# The last of the cores that are ours: the first tends to serve interrupts.
if hasattr(os, "sched_setaffinity"):  # Linux
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])
os.environ["OMP_NUM_THREADS"] = str(CORES)  # PyTorch
os.environ["JAX_NUM_CPU_DEVICES"] = "1"
os.environ.pop("NPROC", None)  # XLA then takes as many threads as there are cores
# The suite is compiled at the lowest level, and without fusions that MuJoCo dislikes.
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if not flag.startswith(("--xla_backend_optimization", "--xla_cpu_use_fusion"))
)

TABLES = pytest.StashKey[list]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Undoes the suite's `-n2`, under which nothing can be timed."""
    config.option.numprocesses = 0
    config.option.dist = "no"
    config.option.tx = []


def pytest_configure(config):
    config.stash[TABLES] = []


@pytest.fixture
def seconds():
    """`seconds(run)`: of the processor on one core, of the clock on several."""
    clock = time.process_time if CORES == 1 else time.perf_counter

    def spent(run):
        started = clock()
        run()
        return clock() - started

    return spent


@pytest.fixture
def table(request):
    """`table(title, rows)` prints rows of text at the end of the session."""
    return lambda title, rows: request.config.stash[TABLES].append((title, rows))


def pytest_terminal_summary(terminalreporter, config):
    for title, rows in config.stash[TABLES]:
        terminalreporter.section(title)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = zip(row, widths, strict=True)
            terminalreporter.line("  ".join(text.ljust(n) for text, n in cells))
