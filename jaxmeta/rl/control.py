"""A task of the manipulation suites to be learned by trial and error, whole."""

import dataclasses

from jaxmeta.core.experiment import Checkpointing
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import Suite, SuiteSplit
from jaxmeta.rl.ppo import Ppo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """One training run: which tasks, in which physics, by which agent, for how long.

    Raises:
      ValueError: at construction, naming the field, its value and the fix.

    Example:
      >>> Control(suite=Suite(name="MT1", task="reach")).evaluations
      10
    """

    suite: Suite
    """The tasks, with the official goals that the result is measured on."""

    agent: Ppo = dataclasses.field(default_factory=Ppo)
    """What learns."""

    physics: Physics = dataclasses.field(default_factory=Physics)
    """The faithful 5 x 2.5 ms, or the fast 1 x 12.5 ms."""

    steps: int = 1_000_000
    """Steps of all environments together; rounded up to whole updates."""

    evaluations: int = 10
    """Times that the policy is measured and saved on the way."""

    episodes: int = 32
    """Episodes of such a measurement, with goals drawn anew."""

    checkpoint: Checkpointing = dataclasses.field(default_factory=Checkpointing)
    """How many checkpoints are kept; there is one at every evaluation."""

    seed: int = 0
    """Root of every random number of the run."""

    def __post_init__(self):
        for name in ("steps", "evaluations", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be from 0 to 2**31 - 1, got {self.seed}.")
        if self.checkpoint.every:
            raise ValueError(
                "checkpoint.every must be 0, there is a checkpoint at each of the "
                f"evaluations, got {self.checkpoint.every}."
            )

    def env(self, split: SuiteSplit) -> ManipulationEnv:
        """The environment of the tasks of a split."""
        tasks = self.suite.of(split)
        return ManipulationEnv(
            tasks,
            physics=self.physics,
            hidden_goal=self.suite.hides_goals,
            one_hot=len(tasks) > 1 and not self.suite.hides_goals,
        )
