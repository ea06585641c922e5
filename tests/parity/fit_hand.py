"""Fits the free hand of `jaxmeta.manipulation.hand` to what `record_hand.py` recorded.

    python tests/parity/fit_hand.py hand.npz --held-out other.npz

Least squares of the distances at every step, by Levenberg and Marquardt; distances
beyond 6 mm count more, so that the largest are small, those beyond 18 mm only linearly,
as something else is the matter there. Prints how far the hand comes apart, and the
tables.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmeta.manipulation.hand import STEPS, Tables, at_rest, free_motion

QUADRATIC, CUBIC = 7, 20
SCALE = 0.006
POINTS = 0.3
"""Weight of the episodes with random points."""


def load(path):
    """Names, weights, and goals and hands padded to the longest episode."""
    with np.load(path) as file:
        names = sorted({name.rsplit("/", 1)[0] for name in file})
        episodes = [(file[f"{n}/goal"], file[f"{n}/hand"]) for n in names]
    kept = [i for i, (goal, _) in enumerate(episodes) if len(goal) > 1]
    names, episodes = [names[i] for i in kept], [episodes[i] for i in kept]
    longest = max(len(goal) for goal, _ in episodes)
    pad = lambda x, n: np.pad(x, ((0, n - len(x)), (0, 0)), mode="edge")
    goal = np.array([pad(goal, longest) for goal, _ in episodes])
    hand = np.array([pad(hand, longest + 1) for _, hand in episodes])
    there = np.array([np.arange(longest) < len(goal) for goal, _ in episodes])
    weights = [POINTS if name.startswith("points") else 1.0 for name in names]
    return names, np.array(weights), goal, hand, there


def motion(tables, goals, start):
    """`[step, 3]` where a hand is after every step."""

    def once(now, goal):
        path = free_motion(goal, now, STEPS, tables)
        now = jax.tree.map(lambda x: x[-1], path)
        return now, now.position

    return jax.lax.scan(once, at_rest(start), goals)[1]


@np.errstate(over="ignore", invalid="ignore")  # of a motion that is not stable
def cost(residuals, weights):
    """The cost, and what every distance weighs in least squares."""
    far = (residuals**2).sum(-1, keepdims=True) / SCALE**2
    weights = weights[:, None, None]
    root = np.sqrt(np.maximum(far, 9.0))
    total = weights * np.where(far < 9.0, far + far**2, 90.0 + 100.0 * (root - 3.0))
    return total.sum(), weights * np.where(far < 9.0, 1 + 2 * far, 50.0 / root)


def fit(data, most):
    """The tables that fit best."""
    _, weights, goal, hand, there = data
    eye = np.zeros((QUADRATIC, 3, 3))
    eye[0] = np.eye(3)
    flat, unravel = ravel_pytree(Tables(eye, eye.copy(), np.zeros((CUBIC, 3))))

    def apart(flat):
        seen = jax.vmap(motion, (None, 0, 0))(unravel(flat), goal, hand[:, 0])
        return (seen - hand[:, 1:]) * there[..., None]

    apart, slopes = jax.jit(apart), jax.jit(jax.jacfwd(apart))
    residuals = np.asarray(apart(flat))
    (total, factors), damping = cost(residuals, weights), 1e-3
    for i in range(most):
        jacobian = np.asarray(slopes(flat), np.float32).reshape(-1, flat.size)
        factors = np.broadcast_to(factors, residuals.shape).reshape(-1, 1)
        weighted = (factors * jacobian).T
        normal = np.asarray(weighted @ jacobian, float)
        slope = np.asarray(weighted @ residuals.ravel(), float)
        before = total
        while damping < 1e8:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
            tried = np.asarray(apart(flat + step))
            new_total, new_factors = cost(tried, weights)
            if new_total < total:
                flat, residuals, factors = flat + step, tried, new_factors
                total, damping = new_total, damping / 3
                break
            damping *= 5
        print(f"{i}: {total:.0f}", flush=True)
        if before - total < 5e-4 * before:
            break
    return unravel(flat)


def report(title, tables, data):
    """How far the hand comes apart in the episodes of policies."""
    names, _, goal, hand, there = data
    seen = jax.vmap(motion, (None, 0, 0))(tables, goal, hand[:, 0])
    distance = np.linalg.norm(np.asarray(seen) - hand[:, 1:], axis=-1) * there
    largest = distance.max(1)[[not name.startswith("points") for name in names]]
    print(
        f"{title}: {len(largest)} episodes, at most 1 cm in "
        f"{(largest <= 0.01).mean():.3f}, largest {1e3 * largest.max():.1f} mm, "
        f"median of the largest {1e3 * np.median(largest):.1f} mm"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--held-out", type=Path, default=None)
    parser.add_argument("--iterations", type=int, default=25)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    data = load(options.recorded)
    tables = fit(data, options.iterations)
    report("fitted to", tables, data)
    if options.held_out:
        report("held out", tables, load(options.held_out))
    with np.printoptions(precision=3, suppress=True, floatmode="fixed", linewidth=100):
        for name, table in tables._asdict().items():
            print(name, np.array2string(np.asarray(table), separator=", "), sep="\n")


if __name__ == "__main__":
    main()
