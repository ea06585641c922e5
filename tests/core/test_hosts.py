"""What two processes tell each other."""

import sys

from jaxmeta.launch_job import Job
from jaxmeta.launcher import Local
from jaxmeta.supervise import free_port, run_together

PROGRAM = """
import sys
from jaxmeta.cluster import join
from jaxmeta.core import hosts
from jaxmeta.options import ClusterOptions

where, count, place = (word.partition("=")[2] for word in sys.argv[-3:])
join(ClusterOptions(coordinator=where, num_processes=2, process_id=int(place)))
me = int(place)
assert hosts.is_first() == (me == 0)
assert hosts.numbers_of_first([7, 8, 9] if me == 0 else [8]) == [7, 8, 9]
assert hosts.numbers_of_first([] if me == 0 else [8]) == []
assert hosts.as_first(me == 0) and not hosts.as_first(me == 1)
assert hosts.is_true_of_all(True) and not hosts.is_true_of_all(me == 0)
with hosts.together():
    pass
try:
    with hosts.together():
        assert me == 1, "here"
except AssertionError as error:
    said = f"{error}"
except ValueError as error:
    said = f"{error}"
assert said == ("here" if me == 0 else "it failed in another process")
"""


def test_two_processes_do_the_same():
    target = Local(num_processes=2, port=free_port())
    processes = [
        (environ, [sys.executable, "-c", PROGRAM, *words])
        for environ, words in target.processes(Job(config="-", run_dir="-"))
    ]
    assert run_together(processes) == 0
