"""How contacts give way: MuJoCo's numbers of the official materials, for pyramids.

A contact pushes apart like a critically damped spring that is regularised: of the
acceleration that the spring asks for, a share d (the impedance) is met. The official
scenes have elliptic friction cones, MuJoCo XLA is quick with pyramids, and the same
numbers mean a softer contact there, by up to seven times. `pyramid` makes up for it.
MuJoCo's documentation, "Computation" and "Modeling: solver parameters".
"""

from typing import NamedTuple


class Material(NamedTuple):
    """The numbers of one thing; those of a contact are the means of both.

    Attributes:
      time: within which a contact is pushed apart, seconds (`solref[0]`).
      low: impedance where two just touch, in (0, 1) (`solimp[0]`).
      high: and where they are `width` deep (`solimp[1]`).
      width: metres (`solimp[2]`).
    """

    time: float
    low: float
    high: float
    width: float


TABLE = Material(0.02, 0.9, 0.95, 0.001)
"""MuJoCo's own numbers: of the official table and wrist."""

OBJECT = Material(0.01, 0.99, 0.99, 0.01)
"""Of almost everything that official tasks put on the table."""

PAD = Material(0.01, 0.95, 0.99, 0.01)
"""Of the fingers."""


def between(a: Material, b: Material) -> Material:
    """The numbers of a contact of two things.

    Example:
      >>> [round(x, 4) for x in between(TABLE, OBJECT)]
      [0.015, 0.945, 0.97, 0.0055]
    """
    return Material(*((x + y) / 2 for x, y in zip(a, b, strict=True)))


def pyramid(contact: Material, friction: float, condim: int) -> Material:
    """The numbers with which a pyramid is as stiff as an elliptic cone along its axis.

    A cone of impedance d is as stiff as `d / (1 - d)`; a pyramid has n edges, 2 for
    each direction of friction, each `2 m^2 (1 + m^2)` times softer at friction m. So

      d' / (1 - d') = 2 m^2 (1 + m^2) / n   d / (1 - d)

    Args:
      contact: the numbers for an elliptic cone.
      friction: its coefficient of sliding friction.
      condim: 3, or 4 with friction against turning.

    Example:
      >>> pyramid(OBJECT, 1.0, 3) == OBJECT
      True
      >>> round(pyramid(OBJECT, 2.0, 4).low, 5)
      0.99849
    """
    softer = 2 * friction**2 * (1 + friction**2) / (2 * (condim - 1))
    as_stiff = lambda d: softer * d / (1 - d + softer * d)
    return contact._replace(low=as_stiff(contact.low), high=as_stiff(contact.high))
