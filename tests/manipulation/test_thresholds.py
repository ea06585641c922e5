"""Why two official policies succeed less often here than officially.

They carry a thing while the hand is less than so high above it, and grip it where that
is just so. Told that it lies a little higher than it does, they succeed.
"""

import os

import numpy as np
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.official import VARIABLE, Official
from jaxmeta.manipulation.parity import ScriptedPlay, play
from jaxmeta.manipulation.physics import MODES

TASKS = ("bin-picking", "peg-insert-side")
HIGHER = (0.0, 0.001, 0.002)
"""Than it is, metres."""
LEAST = {"faithful": (0.45, 0.8, 0.95), "fast": (0.2, 0.6, 0.85)}
"""Of either task, two goals of 20 below what was measured."""


@pytest.mark.slow
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} is not set")
@pytest.mark.parametrize("mode", MODES)
def test_policies_on_a_threshold_succeed_when_a_thing_seems_a_little_higher(mode):
    env = ManipulationEnv(TASKS, physics=MODES[mode])
    vectors = ScriptedPlay(physics=None, tasks=TASKS).vectors()
    goals, tasks = vectors.shape[1], np.repeat(np.arange(2), vectors.shape[1])
    rows = vectors.reshape(len(tasks), -1)
    shares = []
    with Official() as official:
        for higher in HIGHER:

            def act(numbers, obs, higher=higher):
                seen = obs.copy()
                seen[:, 6] += higher
                asked = np.array(TASKS)[numbers]
                return official.ask("act", tasks=asked, obs=seen)["actions"]

            solved = play(env, act, tasks, rows).reshape(2, goals) > 0
            shares.append(solved.mean(axis=1))
    print(mode, np.array(shares).T)
    least = np.array(LEAST[mode])
    assert (np.min(shares, axis=1) >= least).all(), shares
    assert (shares[2] >= shares[0] + 0.3).all()
