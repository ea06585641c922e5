"""Contacts of boxes with boxes, capsules and planes, nearer to C MuJoCo's.

MuJoCo XLA finds them by clipping polygons of any shape, which took half the time of
a step. A box is an interval along each of its axes: here all is clipped by intervals,
in the frame of a box. Contacts are those of C MuJoCo more often than MuJoCo XLA's are.

A plane and a box: of each of its diagonals the lower end, as in C MuJoCo. (MuJoCo XLA
leaves out corners that are more than 1 mm above the lowest.)

Two boxes: the axis along which they overlap least is a face's or a pair of edges'
(Gottschalk et al., OBBTree, 1996). At a face, the face that looks at it from the other
box is clipped by it; the corners of what remains, at most four and far from each other,
are contacts. At two edges the point between them is.

A capsule and a box: the squared distance of a point of the axis from the box is convex,
its derivative linear between where the axis enters or leaves one of the box's
intervals. That gives the nearest point, and at a face, or along an edge, both ends of
what is above it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.shaping import Point

APART = 1.0
"""Distance of contacts that there are not, metres."""
PARALLEL = 0.999
"""Cosine from which directions are the same."""
TINY = 1e-9
"""What is less is divided by no more."""
DIAGONALS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
"""Ways to the corners of a face, one after the other."""
ENDS = np.insert(DIAGONALS, 0, 1.0, axis=1)
"""Ways to one end of each diagonal of a box; the other is opposite."""
ASKEW = np.array([[1, 0.01], [-0.01, 1]], np.float32)
"""Turns a little, so that of two corners one is farther."""


class Placed(NamedTuple):
    """A geom.

    Attributes:
      place: `[3]` its centre, any point of a plane, metres.
      turn: `[3, 3]` its axes as columns.
      size: `[3]` of a box half of its sides, of a capsule radius and half length; of a
        plane it is not read.
    """

    place: Point
    turn: Float[Array, "3 3"]
    size: Point


class Contacts(NamedTuple):
    """Contacts of two geoms.

    Attributes:
      distance: `[n]` below 0 where they overlap, metres.
      place: `[n, 3]` the middle of the overlap, metres.
      normal: `[3]` from the first to the second.
    """

    distance: Float[Array, " n"]
    place: Float[Array, "n 3"]
    normal: Point


def box_box(a: Placed, b: Placed) -> Contacts:
    """Up to four contacts of two boxes.

    Args:
      a: the first box.
      b: the second one.

    Example:
      >>> cube = lambda z: Placed(jnp.array([0.0, 0.0, z]), jnp.eye(3), jnp.ones(3))
      >>> box_box(cube(1.9), cube(0.0)).distance.round(3).tolist()
      [-0.1..., -0.1..., -0.1..., -0.1...]
    """
    cosines = b.turn.T @ a.turn
    apart = a.place - b.place
    in_a, in_b = a.turn.T @ apart, b.turn.T @ apart
    faces = jnp.concatenate(
        [
            a.size + jnp.abs(cosines).T @ b.size - jnp.abs(in_a),
            b.size + jnp.abs(cosines) @ a.size - jnp.abs(in_b),
        ]
    )
    face, overlap = jnp.argmin(faces), faces.min()
    # The face is of `one` and, seen in its frame, the other box is at `there`.
    of_a, axis = face < 3, face % 3
    one = jax.tree.map(lambda x, y: jnp.where(of_a, x, y), a, b)
    size = jnp.where(of_a, b.size, a.size)
    there = jnp.where(of_a, -in_a, in_b)
    turn = jnp.where(of_a, cosines.T, cosines)
    # Turned so that the face looks along the last axis.
    there, turn, half = (_last(x, axis) for x in (there, turn, one.size))
    axes = _last(one.turn.T, axis)
    ahead = jnp.where(there[2] < 0, -1.0, 1.0)
    flip = jnp.ones(3).at[2].set(ahead)
    there, turn, axes = there * flip, turn * flip[:, None], axes * flip[:, None]
    normal = axes[2] * jnp.where(of_a, 1.0, -1.0)
    points = _overlap(there, turn, size, half)
    depths = half[2] - points.place[:, 2]
    points, depths, there_are = _far_apart(points, depths)
    distance = jnp.where(there_are, -depths, APART)
    middles = points + 0.5 * depths[:, None] * np.array([[0, 0, 1]], np.float32)
    place = one.place[None] + middles @ axes

    edges = _edges(a, b, cosines, in_b)
    instead = (edges.overlap < overlap - 1e-6) & (
        (jnp.abs(edges.normal @ normal) < PARALLEL) | ~there_are.any()
    )
    single = jnp.full(4, APART).at[0].set(-edges.overlap)
    return Contacts(
        jnp.where(instead, single, distance),
        jnp.where(instead, edges.place[None], place),
        jnp.where(instead, edges.normal, normal),
    )


class _Points(NamedTuple):
    place: Float[Array, "n 3"]
    there: Any  # whether there is such a point


def _overlap(
    there: Point, turn: Float[Array, "3 3"], size: Point, half: Point
) -> _Points:
    """Corners of the overlap of a box's face with the face that looks at it.

    Args:
      there: `[3]` the other box, in the frame of the first.
      turn: `[3, 3]` its axes as columns.
      size: `[3]` half of its sides.
      half: `[3]` half of the first one's sides, whose face looks along z.
    """
    facing = jnp.argmax(jnp.abs(turn[2]))
    axes, size = _last(turn.T, facing), _last(size, facing)
    across, along, out = axes * size[:, None]
    middle = there - jnp.where(out[2] < 0, -1.0, 1.0) * out
    # Its edges, within the intervals of the face.
    sides = jnp.stack([across, along])
    corners = middle[None] + DIAGONALS @ sides
    ways = jnp.roll(corners, -1, axis=0) - corners
    enter, leave = _through(corners[:, :2], ways[:, :2], half[None, :2])
    first = jnp.maximum(enter.max(1), 0.0)
    last = jnp.minimum(leave.min(1), 1.0)
    # The face's own corners, within the intervals of the other one.
    own = DIAGONALS * half[None, :2] - middle[None, :2]
    area = _nonzero(across[0] * along[1] - across[1] * along[0])
    u = (own[:, 0] * along[1] - own[:, 1] * along[0]) / area
    v = (own[:, 1] * across[0] - own[:, 0] * across[1]) / area
    within = (jnp.abs(u) <= 1.0) & (jnp.abs(v) <= 1.0)
    places = [
        corners + first[:, None] * ways,
        corners + last[:, None] * ways,
        middle[None] + jnp.stack([u, v], axis=1) @ sides,
    ]
    clipped = first <= last
    return _Points(jnp.concatenate(places), jnp.concatenate([clipped, clipped, within]))


def _far_apart(points: _Points, depths: Float[Array, " n"]) -> tuple[Any, Any, Any]:
    """Of the points below the face those that are farthest along diagonals.

    Returns:
      Places, depths and whether there is such a point, of four.
    """
    below = points.there & (depths > 1e-6)
    along = (DIAGONALS @ ASKEW) @ points.place[:, :2].T
    chosen = jnp.argmax(jnp.where(below[None], along, -jnp.inf), axis=1)
    hot = chosen[:, None] == jnp.arange(len(depths))[None]
    again = jnp.tril(chosen[:, None] == chosen[None], -1).any(1)
    pick = hot.astype(depths.dtype)
    there_are = (hot & below[None]).any(1) & ~again
    return pick @ points.place, pick @ depths, there_are


class _Edges(NamedTuple):
    overlap: Array
    normal: Point
    place: Point


def _edges(a: Placed, b: Placed, cosines: Array, in_b: Point) -> _Edges:
    """The pair of edges that overlap least.

    Args:
      a: the first box.
      b: the second one.
      cosines: `[3, 3]` between axes of the second and of the first.
      in_b: `[3]` the first box, in the frame of the second.
    """
    size, ahead = jnp.abs(cosines), lambda x, axis: jnp.roll(x, -1, axis)
    after = lambda x, axis: jnp.roll(x, 1, axis)
    reach_a = ahead(a.size, 0)[None] * after(size, 1)
    reach_a += after(a.size, 0)[None] * ahead(size, 1)
    reach_b = ahead(b.size, 0)[:, None] * after(size, 0)
    reach_b += after(b.size, 0)[:, None] * ahead(size, 0)
    apart = after(in_b, 0)[:, None] * ahead(cosines, 0)
    apart -= ahead(in_b, 0)[:, None] * after(cosines, 0)
    # Of the sine, from the other cosines: 1 less the square of its own cancels.
    squares = ahead(cosines**2, 0) + after(cosines**2, 0)
    crossed = squares > 1e-6
    scale = jax.lax.rsqrt(jnp.where(crossed, squares, 1.0))
    overlaps = jnp.where(
        crossed, (reach_a + reach_b - jnp.abs(apart)) * scale, jnp.inf
    ).reshape(-1)
    pair = jnp.argmin(overlaps)
    of_a, of_b = pair % 3, pair // 3
    edge_a, edge_b = _entry(a.turn.T, of_a), _entry(b.turn.T, of_b)
    normal = jnp.cross(edge_b, edge_a)
    normal = normal / jnp.maximum(jnp.sqrt(normal @ normal), TINY)
    normal = normal * jnp.where(normal @ (a.place - b.place) > 0, -1.0, 1.0)

    def middle(box, axis, way):
        corner = box.size * jnp.sign(box.turn.T @ way)
        return box.place + box.turn @ jnp.where(jnp.arange(3) == axis, 0.0, corner)

    from_a, from_b = middle(a, of_a, normal), middle(b, of_b, -normal)
    gap, cosine = from_b - from_a, edge_a @ edge_b
    square = jnp.maximum(_entry(squares.reshape(-1), pair), 1e-6)
    on_a = (gap @ edge_a - cosine * (gap @ edge_b)) / square
    on_b = (cosine * (gap @ edge_a) - gap @ edge_b) / square
    place = 0.5 * (from_a + on_a * edge_a + from_b + on_b * edge_b)
    return _Edges(overlaps.min(), normal, place)


def plane_box(plane: Placed, box: Placed) -> Contacts:
    """Up to four contacts of a plane and a box.

    Args:
      plane: whose normal is its z axis.
      box: the box.

    Example:
      >>> plane = Placed(jnp.zeros(3), jnp.eye(3), jnp.zeros(3))
      >>> cube = Placed(jnp.array([0.0, 0.0, 0.9]), jnp.eye(3), jnp.ones(3))
      >>> plane_box(plane, cube).distance.round(3).tolist()
      [-0.1..., -0.1..., -0.1..., -0.1...]
    """
    normal = plane.turn[:, 2]
    ends = ENDS * box.size[None]
    heights = ends @ (box.turn.T @ normal)
    lower = jnp.where(heights < 0, 1.0, -1.0)
    distance = (box.place - plane.place) @ normal + lower * heights
    corners = box.place[None] + (lower[:, None] * ends) @ box.turn.T
    return Contacts(distance, corners - 0.5 * distance[:, None] * normal[None], normal)


def capsule_box(capsule: Placed, box: Placed) -> Contacts:
    """Up to two contacts of a capsule and a box.

    Args:
      capsule: along its z axis.
      box: the box.

    Example:
      >>> box = Placed(jnp.zeros(3), jnp.eye(3), jnp.ones(3))
      >>> upright = Placed(jnp.array([0.0, 0.0, 1.45]), jnp.eye(3), jnp.full(3, 0.25))
      >>> capsule_box(upright, box).distance.round(3).tolist()
      [-0.05..., 0.45...]
    """
    radius, half = capsule.size[0], box.size
    middle = box.turn.T @ (capsule.place - box.place)
    way = box.turn.T @ capsule.turn[:, 2] * capsule.size[1]
    at = lambda t: middle + t * way
    outside = lambda x: x - jnp.clip(x, -half, half)
    enter, leave = _through(middle, way, half)
    times = jnp.concatenate([enter, leave, np.array([-1.0, 1.0], np.float32)])
    times = jnp.clip(times, -1.0, 1.0)
    slopes = jax.vmap(lambda t: outside(at(t)) @ way)(times)
    low = jnp.where(slopes <= 0, times, -1.0).max()
    high = jnp.where(slopes >= 0, times, 1.0).min()
    falls, rises = outside(at(low)) @ way, outside(at(high)) @ way
    turns = rises - falls > 1e-12
    share = -falls / jnp.where(turns, rises - falls, 1.0)
    nearest = low + jnp.where(turns, share, 0.5) * (high - low)
    nearest = jnp.clip(nearest, -1.0, 1.0)
    # Which face: the one it is above, or, with the axis inside, the least deep.
    off = outside(at(nearest))
    gap = jnp.sqrt(off @ off)
    is_out, off = gap > 1e-6, off / jnp.maximum(gap, TINY)
    ends = jnp.stack([middle - way, middle + way])
    above = jnp.concatenate([ends.min(0) - half, -ends.max(0) - half])
    faces = jnp.concatenate([off, -off])
    face = jnp.argmax(jnp.where(is_out, faces, above))
    axis = jnp.arange(3) == face % 3
    outward = jnp.where(axis, jnp.where(face < 3, 1.0, -1.0), 0.0)
    # Above a face or along an edge it has a contact at either end of what is above it.
    above_face = ~is_out | (faces.max() > PARALLEL)
    along = jnp.abs(way) > PARALLEL * capsule.size[1]
    free = jnp.where(above_face, axis | (jnp.abs(way) < TINY), ~along)
    first = jnp.maximum(jnp.where(free, -1.0, enter).max(), -1.0)
    last = jnp.minimum(jnp.where(free, 1.0, leave).min(), 1.0)
    flat = (above_face | along.any()) & (last >= first)
    # The nearest point may be beyond the face by a little.
    first = jnp.where(is_out, jnp.minimum(first, nearest), first)
    last = jnp.where(is_out, jnp.maximum(last, nearest), last)
    chosen = jnp.where(flat, jnp.stack([first, last]), nearest)
    points = middle[None] + chosen[:, None] * way[None]
    normal = jnp.where(flat & above_face, outward, off)
    signed = jnp.where(is_out, jnp.linalg.norm(jax.vmap(outside)(points), axis=1), -gap)
    heights = points @ outward - half @ jnp.abs(outward)
    gaps = jnp.where(flat & above_face, heights, signed)
    second = flat & (last - first > 1e-3)
    apart = jnp.stack([gaps[0] - radius, jnp.where(second, gaps[1] - radius, APART)])
    middles = points - (radius + 0.5 * apart)[:, None] * normal[None]
    place = box.place[None] + middles @ box.turn.T
    return Contacts(apart, place, -(box.turn @ normal))


def frame(normal: Point) -> Float[Array, "3 3"]:
    """Rows of a frame whose first is the normal, as MuJoCo makes it.

    Args:
      normal: `[3]` of length 1.
    """
    y = jnp.where(jnp.abs(normal[1]) < 0.5, jnp.arange(3) == 1, jnp.arange(3) == 2)
    y = y - normal * (normal @ y.astype(normal.dtype))
    y = y * jax.lax.rsqrt(y @ y)
    return jnp.stack([normal, y, jnp.cross(normal, y)])


def _through(start: Array, way: Array, half: Array) -> tuple[Array, Array]:
    """When `start + t way` enters and leaves an interval of half a width."""
    way = _nonzero(way)
    ahead = jnp.sign(way) * half
    return (-ahead - start) / way, (ahead - start) / way


def _nonzero(x: Array) -> Array:
    return jnp.where(jnp.abs(x) < TINY, TINY, x)


def _last(rows: Array, which: Int[Array, ""]) -> Array:
    """Three rows moved round until the one asked for is the last."""
    first, second, third = rows
    once, twice = jnp.stack([second, third, first]), jnp.stack([third, first, second])
    return jnp.where(which == 0, once, jnp.where(which == 1, twice, rows))


def _entry(rows: Array, which: Int[Array, ""]) -> Array:
    """One of the rows, by a sum: lookups are slow on CPUs."""
    hot = jnp.arange(len(rows)) == which
    return jnp.where(hot.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0.0).sum(0)
