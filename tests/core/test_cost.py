"""What `--dry-run` says."""

from jaxmeta import Parallel
from jaxmeta.core.cost import estimate


def test_parameters_memory_and_compile_time_are_named(small_experiment):
    lines = estimate(small_experiment(parallel=Parallel()))
    names = [line.split(":")[0] for line in lines]
    # The smoke learner has three weights and a bias.
    assert lines[0] == "parameters: 4"
    assert names[1] == "memory per device"
    assert names[-1] == "compile"
    assert lines[-1].endswith("s for one step")
