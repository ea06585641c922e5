"""The official hand: dragged by a point, of which a stretched arm falls short.

Actions move a point; the hand follows it like a critically damped spring (`scene`) and
comes to rest near it. How near was fitted to 600 recorded episodes of the official
package (seed 7, up to the first contact): a quadratic in the distance from the robot
halves the median error of the hand, 6 to 3 mm, and makes the ninetieth percentile 8 mm
instead of 14.

On its way the official hand lags further in y and z, by 17 and 13 %, and the arm passes
a push on sideways. That is not modelled. Two constant matrices, added to the servo's
target (`P (rest - hand - velocity / 20) - D velocity / 20`, fitted to the recordings),
bring the hand within 1 cm until the first contact on 43 instead of 28 tasks. But they
also turn aside a push against what is in the way, and of six episodes each the official
policies then solve none of *bin-picking* and *dial-turn* and two of *disassemble*,
instead of five, six and six.
"""

import jax.numpy as jnp

from jaxmeta.manipulation.shaping import Point

STEP_LENGTH = 0.01
"""How far an action of 1 moves the point that drags the hand, metres."""

AT_RESET = (0.0045, 0.0014, -0.0049)
"""Where the hand is after the official reset, from where it was sent, metres."""


def pull(goal: Point) -> Point:
    """Where the hand comes to rest when it is dragged to a point.

    With `u = (y - .65) / .25`: `y - .0024 - .0175 u - .0164 u^2` and
    `z - .0038 + .0018 u + .0019 u^2`, metres.

    Args:
      goal: `[3]` the point, metres.

    Example:
      >>> pull(jnp.array([0.0, 0.9, 0.2])).round(4).tolist()[1] < 0.9
      True
    """
    u = (goal[1] - 0.65) / 0.25
    y = -0.0024 - 0.0175 * u - 0.0164 * u**2
    z = -0.0038 + 0.0018 * u + 0.0019 * u**2
    return goal + jnp.stack([jnp.zeros_like(u), y, z])
