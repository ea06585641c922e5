"""Pick-place by PPO from scratch, on MT1's goals."""

from jaxmeta.manipulation.suites import Suite
from jaxmeta.rl.control import Control
from jaxmeta.rl.ppo import Ppo

PAPER = "Schulman et al. 2017 (arXiv 1707.06347) on Yu et al. 2019 (arXiv 1910.10897)"
COST = "33 min on 2 CPU cores beside another run; 28 min of one core"


def get_config() -> Control:
    """Brax's PPO on the faithful physics; half learned in this time."""
    return Control(
        suite=Suite(name="MT1", task="pick-place"),
        agent=Ppo(entropy_cost=0.03, discount=0.97),
        steps=3_000_000,
    )
