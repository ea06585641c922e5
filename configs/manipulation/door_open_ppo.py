"""Door-open by PPO from scratch, on MT1's goals."""

from jaxmeta.manipulation.physics import MODES
from jaxmeta.manipulation.suites import Suite
from jaxmeta.rl.control import Control
from jaxmeta.rl.ppo import Ppo

PAPER = "Schulman et al. 2017 (arXiv 1707.06347) on Yu et al. 2019 (arXiv 1910.10897)"
COST = "20 min of one CPU core"


def get_config() -> Control:
    """Brax's PPO, fast physics; with more entropy success comes and goes."""
    return Control(
        suite=Suite(name="MT1", task="door-open"),
        agent=Ppo(desired_kl=0.01, entropy_cost=0.003, discount=0.97),
        physics=MODES["fast"],
        steps=12_000_000,
        checkpoint="best",
    )
