"""Steps of the manipulation environment per second, as `jaxmeta bench env` has them."""

from jaxmeta.manipulation import bench


def test_env_speed(table):
    found = bench.measure()
    table("Manipulation: random actions", bench.lines(found))
    assert all(row["steps_per_second"] > 0 for row in found["rows"])
