"""Steps of the manipulation environment per second, as `jaxmeta bench env` has them."""

import json
import subprocess
import sys

from jaxmeta.manipulation import bench

PROGRAM = "import sys; from jaxmeta.cli import main; main(sys.argv[1:])"


def test_env_speed(table, tmp_path):
    """In a process of its own, for which the command sets XLA's switches."""
    out = tmp_path / "speed.json"
    command = [sys.executable, "-c", PROGRAM, "bench", "env", "--out", str(out)]
    subprocess.run(command, capture_output=True, check=True)
    found = json.loads(out.read_text())
    table("Manipulation: random actions", bench.lines(found))
    assert all(row["steps_per_second"] > 0 for row in found["rows"])
