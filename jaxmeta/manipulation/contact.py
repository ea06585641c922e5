"""How contacts give way: MuJoCo's numbers of the official materials, for pyramids.

A contact pushes apart like a critically damped spring that is regularised: of the
acceleration that the spring asks for, a share d (the impedance) is met. The official
scenes have elliptic friction cones, MuJoCo XLA is quick with pyramids, and the same
numbers mean a softer contact there, by up to seven times. `pyramid` makes up for it.
MuJoCo's documentation, "Computation" and "Modeling: solver parameters". And MuJoCo
3.3.0, by which official scenes are simulated, counts half the depth of one box in
another.
"""

from typing import NamedTuple


class Material(NamedTuple):
    """The numbers of one thing; those of a contact are the means of both.

    Attributes:
      time: within which a contact is pushed apart, seconds (`solref[0]`).
      low: impedance where two just touch, in (0, 1) (`solimp[0]`).
      high: and where they are `width` deep (`solimp[1]`).
      width: metres (`solimp[2]`).
      box: whether the thing is a box officially, or, of a contact, both are.
    """

    time: float
    low: float
    high: float
    width: float
    box: bool = False


WRIST = Material(0.02, 0.9, 0.95, 0.001)
"""MuJoCo's own numbers: of the official wrist."""

TABLE = WRIST._replace(box=True)
"""The same for the table, a box."""

OBJECT = Material(0.01, 0.99, 0.99, 0.01)
"""Of almost everything that official tasks put on the table."""

BOX = OBJECT._replace(box=True)
"""Of what is a box among it."""

PAD = Material(0.01, 0.95, 0.99, 0.01)
"""Of the fingers. Officially they are boxes and their contacts begin 1 mm early, which,
as deep in a thing as they are when they hold it, comes to much the same as this."""


def between(a: Material, b: Material) -> Material:
    """The numbers of a contact of two things.

    Example:
      >>> [round(x, 4) for x in between(TABLE, OBJECT)[:4]]
      [0.015, 0.945, 0.97, 0.0055]
    """
    numbers = ((x + y) / 2 for x, y in zip(a[:4], b[:4], strict=True))
    return Material(*numbers, box=a.box and b.box)


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


def attributes(contact: Material) -> str:
    """`solref` and `solimp` of a contact, as MJCF.

    Of two boxes the spring is half as stiff and damped as ever, which is a damping
    ratio of the root of 2, and `width` is reached at twice the depth.

    Example:
      >>> attributes(BOX)
      'solref="0.01 1.41421356" solimp="0.99 0.99 0.02"'
    """
    ratio, width = (2**0.5, 2 * contact.width) if contact.box else (1, contact.width)
    return (
        f'solref="{contact.time:.9g} {ratio:.9g}" '
        f'solimp="{contact.low:.9g} {contact.high:.9g} {width:.9g}"'
    )


def pair(
    a: str, b: str, friction: float, condim: int, *of: Material, margin: float = 0.0
) -> str:
    """Two geoms that may touch, as MJCF.

    Args:
      a: the name of one.
      b: that of the other.
      friction: coefficient of sliding friction.
      condim: 3, or 4 with friction against turning.
      of: the materials of both.
      margin: they push where their distance is less, metres; -1: not before they are
        1 m deep in one another.

    Example:
      >>> text = pair("pad", "cube", 2.0, 4, PAD, OBJECT, margin=-1.0)
      >>> text[:40], text[-16:]
      ('<pair geom1="pad" geom2="cube" condim="4', ' margin="-1.0"/>')
    """
    contact = pyramid(between(*of), friction, condim)
    twist = 0.1 if condim == 4 else 0.005  # of the official pads, which hold upright
    return (
        f'<pair geom1="{a}" geom2="{b}" condim="{condim}" '
        f'friction="{friction} {friction} {twist} .0001 .0001" '
        f'{attributes(contact)} margin="{margin}"/>'
    )
