"""Contacts of boxes, capsules and planes: C MuJoCo's, and beside MuJoCo XLA's."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.collision import (
    APART,
    Placed,
    box_box,
    capsule_box,
    frame,
    plane_box,
)

COUNT, SHALLOW = 300, (5e-4, 3e-3)
"""Pairs of a kind, and how deep they are in one another, metres."""
TURNS = (0.0, 0.02, 0.3, 2.0)
"""How far geoms are turned from one another, radians."""
FOUND = {
    "box": jax.jit(jax.vmap(box_box)),
    "capsule": jax.jit(jax.vmap(capsule_box)),
}
"""Compiled once."""
AT_MOST = {"box": 4, "capsule": 2}
"""How many contacts there are."""


def turned(rng, count, angle):
    """`[count, 3, 3]` turns by about that angle."""
    if angle == 0:
        return np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
    quats = np.concatenate(
        [np.ones((count, 1)), 0.5 * angle * rng.normal(size=(count, 3))], 1
    )
    found = np.zeros((count, 9))
    for quat, row in zip(quats, found, strict=True):
        mujoco.mju_quat2Mat(row, quat / np.linalg.norm(quat))
    return found.reshape(count, 3, 3).astype(np.float32)


def pairs(kind, angle):
    """Geoms that touch, and what is found of them."""
    rng = np.random.default_rng(int(100 * angle))
    size = lambda: rng.uniform(0.01, 0.05, (COUNT, 3)).astype(np.float32)
    place = 0.03 * rng.normal(size=(COUNT, 3)).astype(np.float32)
    one = Placed(place, turned(rng, COUNT, angle), size())
    other = Placed(np.zeros_like(place), turned(rng, COUNT, angle), size())
    if kind == "capsule":
        one = one._replace(size=one.size * np.float32([0.6, 1.0, 0.0]))
        if angle == 0:  # lying
            axes = np.float32([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
            one = one._replace(turn=one.turn @ axes)
    found = FOUND[kind]
    depths = rng.uniform(*SHALLOW, COUNT)
    for _ in range(4):
        contacts = found(one, other)
        deep = -np.asarray(contacts.distance).min(axis=1)
        back = np.where(deep > -APART / 2, deep - depths, 0.0)[:, None]
        away = one.place - np.asarray(contacts.normal) * back
        one = one._replace(place=away.astype(np.float32))
    return one, other, jax.device_get(found(one, other))


def scene(kind):
    """Two free geoms for MuJoCo."""
    sizes = {"box": ".2 .2 .2", "capsule": ".2 .2"}  # larger than any that is set
    body = '<body><freejoint/><geom type="{}" size="{}"/></body>'
    geoms = "".join(body.format(x, sizes[x]) for x in (kind, "box"))
    return mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody>{geoms}</worldbody></mujoco>"
    )


def contacts_in_c(model, one, other):
    """Distances, places and normals that C MuJoCo finds."""
    data = mujoco.MjData(model)
    for i, (place, turn, size) in enumerate((one, other)):
        model.geom_size[i] = size
        model.geom_rbound[i] = np.linalg.norm(size) + size[0]
        data.qpos[7 * i : 7 * i + 3] = place
        mujoco.mju_mat2Quat(
            data.qpos[7 * i + 3 : 7 * i + 7], turn.ravel().astype(float)
        )
    mujoco.mj_kinematics(model, data)
    mujoco.mj_collision(model, data)
    rows = [(c.dist, c.pos.copy(), c.frame[:3].copy()) for c in data.contact]
    return [np.array(x) for x in zip(*rows, strict=True)] if rows else None


@pytest.mark.parametrize("angle", TURNS)
@pytest.mark.parametrize("kind", ["box", "capsule"])
def test_contacts_are_those_of_c_mujoco(kind, angle):
    one, other, found = pairs(kind, angle)
    model, seen, depth, cosine, far = scene(kind), 0, [], [], []
    for i in range(COUNT):
        pick = lambda x, i=i: jax.tree.map(lambda rows: rows[i], x)
        theirs = contacts_in_c(model, pick(one), pick(other))
        ours = pick(found)
        touch = ours.distance < 0
        np.testing.assert_allclose(np.linalg.norm(ours.normal), 1.0, atol=1e-5)
        assert len(touch) == AT_MOST[kind]
        if theirs is None:
            assert ours.distance.min() > -1e-5
            continue
        distances, places, normals = theirs
        seen += 1
        assert touch.any()
        deepest = distances.argmin()
        depth.append(abs(ours.distance.min() - distances[deepest]))
        cosine.append(ours.normal @ normals[deepest])
        gaps = ours.place[ours.distance.argmin()] - places
        far.append(np.linalg.norm(gaps, axis=1).min())
    assert seen > 0.7 * COUNT
    cosine = np.array(cosine)
    # With the smallest turns edges and faces overlap the same but for rounding.
    assert (cosine > 0.999).mean() > (0.97 if angle < 0.1 else 0.98)
    assert np.quantile(depth, 0.95) < 3e-5
    if kind == "capsule":
        assert max(depth) < 2e-3
    assert np.median(far) < 1e-5
    assert np.quantile(far, 0.9) < 2e-3


def test_a_plane_touches_the_four_corners_that_c_mujoco_finds():
    """However a box is turned, and however far below the others its lowest one is."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="1 1 1" pos=".01 .02 .03" '
        'euler="20 -30 10"/><body><freejoint/>'
        '<geom type="box" size=".2 .2 .2"/></body></worldbody></mujoco>'
    )
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    size = np.float32([0.02, 0.05, 0.03])
    turns = np.concatenate([turned(rng, 50, angle) for angle in TURNS])
    places = rng.uniform(-0.02, 0.1, (len(turns), 3)).astype(np.float32)
    model.geom_size[1] = size
    mujoco.mj_kinematics(model, data)
    slope = data.geom_xmat[0].reshape(3, 3).astype(np.float32)
    ground = Placed(jnp.array([0.01, 0.02, 0.03]), jnp.asarray(slope), jnp.ones(3))
    found = jax.vmap(lambda *box: plane_box(ground, Placed(*box)))
    sizes = np.tile(size, (len(turns), 1))
    ours, seen = jax.device_get(jax.jit(found)(places, turns, sizes)), set()
    for i, (place, turn) in enumerate(zip(places, turns, strict=True)):
        data.qpos[:3] = place
        mujoco.mju_mat2Quat(data.qpos[3:], turn.ravel().astype(float))
        mujoco.mj_forward(model, data)
        touch = ours.distance[i] < 0
        seen.add(int(touch.sum()))
        rows = np.column_stack([ours.place[i], ours.distance[i]])[touch]
        theirs = np.column_stack([data.contact.pos, data.contact.dist])
        order = lambda rows: rows[np.lexsort(rows.round(4).T)]
        np.testing.assert_allclose(order(rows), order(theirs), atol=2e-6)
        np.testing.assert_allclose(ours.normal[i], slope[:, 2])
    assert seen == {0, 1, 2, 3, 4}


def test_a_box_that_lies_on_another_has_four_contacts():
    table = Placed(jnp.zeros(3), jnp.eye(3), jnp.array([0.5, 0.4, 0.1]))
    turn = jnp.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    block = Placed(jnp.array([0.1, 0.1, 0.118]), turn, jnp.full(3, 0.02))
    for first, second, up in ((block, table, -1.0), (table, block, 1.0)):
        found = box_box(first, second)
        np.testing.assert_allclose(found.distance, -0.002, atol=1e-6)
        np.testing.assert_allclose(found.normal, [0.0, 0.0, up], atol=1e-6)
        np.testing.assert_allclose(found.place[:, 2], 0.099, atol=1e-6)
        corners = np.array(found.place[:, :2]) - [0.1, 0.1]
        np.testing.assert_allclose(np.abs(corners @ turn[:2, :2]), 0.02, atol=1e-6)
        assert len(np.unique(corners.round(4), axis=0)) == 4


@pytest.mark.parametrize("turn", [0.0, 5e-4, 1.2e-3, 2e-3, 5e-3, 2e-2, np.pi / 4])
def test_faces_on_one_another_have_four_contacts_however_they_are_turned(turn):
    """A pad 1 mm deep in a cube, turned about the normal, anywhere in the world."""
    rng, cos, sin = np.random.default_rng(0), np.cos(turn), np.sin(turn)
    about = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    anyhow = turned(rng, COUNT, 2.0)
    middle = np.tile(np.float32([0.0, 0.0, 0.0245]), (COUNT, 1))
    size = lambda *x: np.tile(np.float32(x), (COUNT, 1))
    pad = Placed(np.zeros_like(middle), anyhow, size(0.016, 0.046, 0.0055))
    cube = Placed(
        np.einsum("nij,nj->ni", anyhow, middle).astype(np.float32),
        (anyhow @ about).astype(np.float32),
        size(0.02, 0.02, 0.02),
    )
    for pair in ((pad, cube), (cube, pad)):
        found = FOUND["box"](*pair)
        np.testing.assert_allclose(found.distance, -0.001, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found.normal, axis=1), 1.0, atol=1e-5)


def test_an_edge_on_a_face_has_two_contacts():
    table = Placed(jnp.zeros(3), jnp.eye(3), jnp.array([0.5, 0.4, 0.1]))
    half = 0.5**0.5
    turn = jnp.array([[1.0, 0.0, 0.0], [0.0, half, -half], [0.0, half, half]])
    block = Placed(jnp.array([0.0, 0.0, 0.1 + 0.027]), turn, jnp.full(3, 0.02))
    found = box_box(block, table)
    assert (np.asarray(found.distance) < 0).sum() == 2
    deep = 0.02 * 2**0.5 - 0.027
    np.testing.assert_allclose(np.sort(found.distance)[:2], -deep, atol=1e-6)


def test_geoms_that_are_apart_do_not_touch():
    box = Placed(jnp.zeros(3), jnp.eye(3), jnp.ones(3))
    away = Placed(jnp.array([2.01, 0.0, 0.0]), jnp.eye(3), jnp.ones(3))
    assert (np.asarray(box_box(away, box).distance) > 0).all()
    capsule = away._replace(size=jnp.array([1.0, 0.5, 0.0]))
    assert (np.asarray(capsule_box(capsule, box).distance) > 0).all()


def test_a_capsule_whose_axis_is_inside_is_pushed_out_of_the_nearest_face():
    box = Placed(jnp.zeros(3), jnp.eye(3), jnp.ones(3))
    turn = jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    lying = Placed(jnp.array([0.1, 0.0, 0.9]), turn, jnp.array([0.05, 0.3, 0.0]))
    found = capsule_box(lying, box)
    np.testing.assert_allclose(found.distance, -0.15, atol=1e-6)
    np.testing.assert_allclose(found.normal, [0.0, 0.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(np.sort(found.place[:, 0]), [-0.2, 0.4], atol=1e-6)


@pytest.mark.parametrize(("along", "ends"), [(0.0, (-0.5, 0.5)), (0.9, (0.4, 1.0))])
def test_a_capsule_along_an_edge_touches_it_at_both_ends(along, ends):
    box = Placed(jnp.zeros(3), jnp.eye(3), jnp.ones(3))
    turn = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    lying = Placed(jnp.array([1.1, along, 1.1]), turn, jnp.array([0.2, 0.5, 0.0]))
    found = capsule_box(lying, box)
    np.testing.assert_allclose(found.distance, 0.1 * 2**0.5 - 0.2, atol=1e-6)
    np.testing.assert_allclose(np.sort(found.place[:, 1]), ends, atol=1e-6)
    np.testing.assert_allclose(found.normal, [-(0.5**0.5), 0.0, -(0.5**0.5)], atol=1e-6)


def test_a_frame_is_right_handed_and_begins_with_the_normal():
    rng = np.random.default_rng(0)
    for normal in rng.normal(size=(10, 3)):
        expected = np.concatenate([normal / np.linalg.norm(normal), np.zeros(6)])
        rows = np.asarray(frame(jnp.asarray(expected[:3], jnp.float32)))
        np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-6)
        np.testing.assert_allclose(rows[0], expected[:3], atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(rows), 1.0, atol=1e-5)
