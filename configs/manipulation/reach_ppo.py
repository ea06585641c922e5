"""Reach, a first task, by PPO from scratch, on MT1's goals."""

from jaxmeta.manipulation.suites import Suite
from jaxmeta.rl.control import Control
from jaxmeta.rl.ppo import Ppo

PAPER = "Schulman et al. 2017 (arXiv 1707.06347) on Yu et al. 2019 (arXiv 1910.10897)"
COST = "11 min on 2 CPU cores with JAX_NUM_CPU_DEVICES=2"


def get_config() -> Control:
    """Brax's PPO on the faithful physics."""
    return Control(
        suite=Suite(name="MT1", task="reach"),
        agent=Ppo(discount=0.97),
        steps=2_000_000,
    )
