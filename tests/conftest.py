"""Test settings: they must be made before JAX is imported."""

import importlib.metadata
import os
from pathlib import Path

# With fewer threads than devices, in-process collectives deadlock on jax 0.10.
os.environ["NPROC"] = "16"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# XLA otherwise says at length what it loads from the compilation cache.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Compilation in half the time. Versions after 0.10 do not know the first.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else "--xla_backend_optimization_level=0",
)

import jaxtyping
import pytest


@pytest.fixture
def untyped(monkeypatch):
    """Without the types that only the tests check: users get the library's errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
