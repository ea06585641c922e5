"""What the official Meta-World package answers, asked over a pipe.

Run by the interpreter of an environment that has the package: it pins another MuJoCo
than ours. Needs it, NumPy and the standard library. `official.Official` starts and asks
it. A message is an npz archive with its length before it; a question names itself
under `question`, and its other arrays are the arguments of the function that answers.
"""

import importlib.metadata
import io
import os
import pickle
import struct
import sys
import time

import numpy as np

HEAD = struct.Struct("<Q")


def send(stream, **arrays):
    """Writes one message."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    data = packed.getvalue()
    stream.write(HEAD.pack(len(data)) + data)
    stream.flush()


def receive(stream):
    """Reads one message as `{name: array}`; None once the other side is gone.

    Example:
      >>> pipe = io.BytesIO()
      >>> send(pipe, x=np.arange(3))
      >>> _ = pipe.seek(0)
      >>> receive(pipe), receive(pipe)
      ({'x': array([0, 1, 2])}, None)
    """
    head = stream.read(HEAD.size)
    data = stream.read(*HEAD.unpack(head)) if len(head) == HEAD.size else b""
    if not data:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


class Package:
    """The package's environments and scripted policies; a question is a method."""

    def __init__(self):
        import metaworld  # pyright: ignore[reportMissingImports]
        from metaworld.env_dict import (  # pyright: ignore[reportMissingImports]
            ALL_V3_ENVIRONMENTS,
        )
        from metaworld.policies import (  # pyright: ignore[reportMissingImports]
            ENV_POLICY_MAP,
        )

        self._task, self._envs = metaworld.Task, ALL_V3_ENVIRONMENTS
        self._policies = {name: policy() for name, policy in ENV_POLICY_MAP.items()}

    def version(self):
        """Of the package."""
        return {"version": importlib.metadata.version("metaworld")}

    def act(self, tasks, obs):
        """What the scripted policies of `tasks` `[row]` do, shown `obs` `[row, 39]`."""
        rows = zip(tasks, obs, strict=True)
        return {"actions": np.stack([self._action(task, seen) for task, seen in rows])}

    def _action(self, task, seen):
        # A copy: some policies write into what they are shown.
        action = self._policies[f"{task}-v3"].get_action(np.array(seen, np.float64))
        return np.clip(action, -1.0, 1.0)

    def play(self, task, vectors, horizon):
        """Plays the scripted policy from every draw of `vectors` `[goal, 6]`.

        Returns `steps` `[goal]`: those until the first success, 0 if there is none.
        """
        env, steps = self._envs[f"{task}-v3"](), np.zeros(len(vectors), np.int64)
        for row, vector in enumerate(vectors):
            seen = self._start(env, task, vector)
            for i in range(int(horizon)):
                seen, _, _, _, info = env.step(self._action(task, seen))
                if info["success"]:
                    steps[row] = i + 1
                    break
        return {"steps": steps}

    def _start(self, env, task, vector):
        """Starts an episode from a draw, with the goal shown: what is seen first."""
        drawn = np.asarray(vector, np.float64)[: len(env._random_reset_space.low)]
        data = {"rand_vec": drawn, "env_cls": type(env), "partially_observable": False}
        env.set_task(self._task(env_name=f"{task}-v3", data=pickle.dumps(data)))
        seen, _ = env.reset()
        return seen

    def speed(self, tasks, vectors, steps):
        """Steps a CPU second with random actions, `steps` of them of every task."""
        rng, spent = np.random.default_rng(0), 0.0
        for task, vector in zip(tasks, vectors, strict=True):
            env = self._envs[f"{task}-v3"]()
            self._start(env, task, vector)
            actions = rng.uniform(-1.0, 1.0, size=(int(steps), 4))
            started = time.process_time()
            for action in actions:
                env.step(action)
            spent += time.process_time() - started
        return {"rate": len(tasks) * steps / spent}


def main():
    """Answers until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the package prints is no answer
    package = Package()
    while (asked := receive(sys.stdin.buffer)) is not None:
        question = getattr(package, str(asked.pop("question")))
        send(answers, **question(**asked))


if __name__ == "__main__":
    main()
