"""Who is drawn how often, who is evaluated, and what is refused."""

import collections
import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmeta.core.evaluate import evaluate, make_evaluator
from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean
from jaxmeta.core.parallel import Parallel
from jaxmeta.data.groups import (
    MOST_POINTS,
    ArrayGroups,
    Groups,
    GroupSource,
    group_points,
)
from jaxmeta.data.source import DataError

KEY = jax.random.key(0)
SIZES = (2, 5, 11, 22)  # training points of every group
TEST_SIZES = (7, 1, 9, 3)
NUM_TRAIN = sum(SIZES)


def make_source(**settings):
    """Points whose input is their number; held-out groups have names of their own."""
    names = {
        **dict(zip("dbca", SIZES, strict=True)),
        "val": 4,
        **{f"test{i}": n for i, n in enumerate(TEST_SIZES)},
    }
    ids = np.repeat(list(names), list(names.values()))
    order = np.random.default_rng(1).permutation(len(ids))
    number = np.arange(len(ids), dtype=np.float32)
    return ArrayGroups(
        inputs=number[:, None],
        targets=np.arange(len(ids)) % 3,
        group_ids=ids[order],
        held_out=(("val",), tuple(f"test{i}" for i in range(4))),
        **settings,
    )


def sample(source, num_tasks, split="train", key=KEY):
    """`[task, set, point]` the numbers of the points, their groups and the mask."""
    draw = jax.jit(lambda key, slots: source.sample(key, slots, split=split))
    query = draw(key, jnp.arange(num_tasks)).query
    return jax.tree.map(np.asarray, query)


def members_of(source, split="train"):
    """`{group: numbers of its points}` of the whole array, by NumPy."""
    ids = source.group_ids
    known = {
        "train": set("abcd"),
        "validation": {"val"},
        "test": {f"test{i}" for i in range(4)},
    }[split]
    return {
        i: set(np.flatnonzero(ids == name).tolist())
        for i, name in enumerate(sorted(known))
    }


def looks_like(counts, expected):
    """Whether counts are those of given chances; a false alarm once in a thousand."""
    expected = np.asarray(expected, np.float64)
    expected = expected / expected.sum() * np.sum(counts)
    return stats.chisquare(counts, expected).pvalue > 1e-3


# --- groups ---------------------------------------------------------------------------


def test_points_are_sorted_into_groups():
    ids = np.array([30, 10, 20, 10, 30, 30])
    found = group_points(np.arange(6.0)[:, None], np.arange(6) % 2, ids)
    np.testing.assert_array_equal(found.groups, [2, 0, 1, 0, 2, 2])
    np.testing.assert_array_equal(found.sizes, [2, 1, 3])
    np.testing.assert_array_equal(found.targets, [0, 1, 0, 1, 0, 1])
    assert found.members.shape == (3, 3)
    for group, rows in enumerate([[1, 3], [2], [0, 4, 5]]):
        assert sorted(found.members[group, : len(rows)].tolist()) == rows
        assert set(found.members[group].tolist()) == set(rows)


def test_members_are_shuffled_once():
    ids = np.repeat([0, 1], 50)
    first, again = (
        group_points(np.zeros((100, 1)), np.zeros(100, int), ids) for _ in range(2)
    )
    np.testing.assert_array_equal(first.members, again.members)
    assert (np.diff(first.members[0]) < 0).any()


def test_splits_share_no_group():
    source = make_source()
    seen = []
    for split in ("train", "validation", "test"):
        points = source.read()[split]
        by_group = collections.defaultdict(set)
        for number, group in zip(points.inputs[:, 0], points.groups, strict=True):
            by_group[int(group)].add(int(number))
        assert dict(by_group) == members_of(source, split)
        seen += [number for group in by_group.values() for number in group]
    assert sorted(seen) == list(range(len(source.group_ids)))
    np.testing.assert_array_equal(source.sizes("train"), [22, 5, 11, 2])


def test_two_sources_have_data_of_their_own():
    first = make_source(points_per_set=2)
    second = dataclasses.replace(first, inputs=first.inputs + 1000.0)
    assert first.read()["test"].inputs.max() < 1000.0
    assert second.read()["test"].inputs.min() >= 1000.0
    assert first != second


def test_how_points_are_drawn_does_not_change_the_data():
    first = make_source(points_per_set=2)
    second = dataclasses.replace(first, points_per_set=5, sampler="point")
    jax.tree.map(np.testing.assert_array_equal, first.read(), second.read())


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_bytes_are_scaled(dtype):
    inputs = np.array([[0], [51], [255], [0], [51], [255]], dtype)
    source = ArrayGroups(
        inputs=inputs,
        targets=np.zeros(6, int),
        group_ids=np.array([0, 0, 0, 0, 1, 2]),
        held_out=((1,), (2,)),
        points_per_set=1,
    )
    for split, number in (("validation", 51), ("test", 255)):
        found = sample(source, 1, split).inputs
        assert found.dtype == np.float32
        scale = 255 if dtype == np.uint8 else 1
        np.testing.assert_allclose(found.item(), number / scale, rtol=1e-6)


# --- samplers -------------------------------------------------------------------------

NUM_TASKS = 3000
CHANCES = {
    "group": np.ones(4),
    "group_by_size": np.array([22, 5, 11, 2]),
    "point": np.array([22, 5, 11, 2]),
    "point_balanced": np.ones(4),
}


def drawn(sampler):
    source = make_source(points_per_set=4, sets_per_task=2, sampler=sampler)
    return source, sample(source, NUM_TASKS)


@pytest.mark.parametrize("sampler", ["group", "group_by_size"])
def test_a_set_is_of_one_group(sampler):
    _, points = drawn(sampler)
    assert points.groups.shape == (NUM_TASKS, 2, 4)
    assert points.mask.all()
    assert (points.groups == points.groups[..., :1]).all()
    # Sets, not points, are what is drawn independently.
    counts = np.bincount(points.groups[..., 0].ravel(), minlength=4)
    assert looks_like(counts, CHANCES[sampler])


@pytest.mark.parametrize("sampler", ["point", "point_balanced"])
def test_points_are_mixed_within_sets(sampler):
    _, points = drawn(sampler)
    assert looks_like(np.bincount(points.groups.ravel(), minlength=4), CHANCES[sampler])
    # Two points of a set are as good as two of different tasks.
    chance = CHANCES[sampler] / CHANCES[sampler].sum()
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (points.groups[..., 0], points.groups[..., 1]), 1)
    assert looks_like(pairs.ravel(), np.outer(chance, chance).ravel())


@pytest.mark.parametrize("sampler", CHANCES)
def test_points_of_a_group_are_equally_likely(sampler):
    source, points = drawn(sampler)
    numbers = points.inputs[..., 0].astype(int)
    for group, members in members_of(source).items():
        found = numbers[points.groups == group]
        assert set(found.tolist()) == members
        if sampler.startswith("group"):  # one a set, which are independent
            found = numbers[..., 0][points.groups[..., 0] == group]
        counts = [np.sum(found == number) for number in sorted(members)]
        assert looks_like(counts, np.ones(len(members)))


@pytest.mark.parametrize("sampler", ["group", "group_by_size"])
def test_sets_of_a_task_are_independent(sampler):
    _, points = drawn(sampler)
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (points.groups[:, 0, 0], points.groups[:, 1, 0]), 1)
    chance = CHANCES[sampler] / CHANCES[sampler].sum()
    assert looks_like(pairs.ravel(), np.outer(chance, chance).ravel())


@pytest.mark.parametrize("sampler", ["group", "group_by_size"])
def test_points_of_a_set_are_drawn_with_replacement(sampler):
    source, points = drawn(sampler)
    sizes = source.sizes("train")
    numbers = points.inputs[..., 0]
    same = (numbers[..., 0] == numbers[..., 1])[points.groups[..., 0] == 1]
    assert sizes[1] == 5
    assert looks_like([same.sum(), (~same).sum()], [1, 4])


@pytest.mark.parametrize("sampler", CHANCES)
def test_targets_and_groups_are_those_of_the_point(sampler):
    source, points = drawn(sampler)
    numbers = points.inputs[..., 0].astype(int)
    np.testing.assert_array_equal(points.targets, source.targets[numbers])
    names = np.array(sorted("abcd"))
    np.testing.assert_array_equal(names[points.groups], source.group_ids[numbers])


def test_clients_show_each_of_their_points_once():
    source = make_source(points_per_set=4, sets_per_task=3, sampler="client")
    points = sample(source, 800)
    sizes, seen = source.sizes("train"), collections.defaultdict(collections.Counter)
    for numbers, groups, mask in zip(
        points.inputs[..., 0], points.groups, points.mask, strict=True
    ):
        (group,) = set(groups[mask].tolist())
        found = numbers[mask].astype(int).tolist()
        assert len(set(found)) == len(found) == min(sizes[group], 12)
        assert set(found) <= members_of(source)[group]
        seen[group].update(found)
    counts = np.bincount(points.groups[:, 0, 0], minlength=4)
    assert looks_like(counts, np.ones(4))
    # Who does not fit in today does another time: all points of the largest.
    assert set(seen[0]) == members_of(source)[0]
    assert max(seen[0].values()) < 2 * min(seen[0].values())


# --- keys -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [*CHANCES, "client"])
def test_draws_depend_on_the_key_and_the_slot_alone(sampler):
    source = make_source(points_per_set=4, sets_per_task=2, sampler=sampler)
    many, again = sample(source, 8), sample(source, 8)
    jax.tree.map(np.testing.assert_array_equal, many, again)
    few = source.sample(KEY, jnp.array([5, 2]), split="train").query
    np.testing.assert_array_equal(few.inputs, many.inputs[[5, 2]])
    other = sample(source, 8, key=jax.random.key(1))
    assert (other.inputs != many.inputs).any()
    assert (many.inputs[0] != many.inputs[1]).any()


def test_evaluation_does_not_depend_on_the_key():
    source = make_source(points_per_set=3)
    a, b = (sample(source, 12, "test", jax.random.key(seed)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- evaluation -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 9, 50])
@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("sampler", ["group", "point", "client"])
def test_every_held_out_point_is_asked_about_once(size, split, sampler):
    source = make_source(points_per_set=size, sets_per_task=4, sampler=sampler)
    members = members_of(source, split)
    longest = max(map(len, members.values()))
    num_slots = source.num_slots(split)
    assert num_slots == len(members) * int(np.ceil(longest / size))
    tasks = source.sample(KEY, jnp.arange(num_slots), split=split)
    query = jax.tree.map(np.asarray, tasks.query)
    assert query.mask.shape == (num_slots, 1, size)
    seen = collections.defaultdict(list)
    for i, group in enumerate(np.asarray(tasks.task_id).tolist()):
        real = query.mask[i]
        assert (query.groups[i][real] == group).all()
        seen[group] += query.inputs[i][real].ravel().astype(int).tolist()
        numbers = query.inputs[i].ravel().astype(int)
        np.testing.assert_array_equal(query.targets[i][0], source.targets[numbers])
    for group, numbers in members.items():
        assert sorted(seen[group]) == sorted(numbers)


@pytest.mark.parametrize("size", [3, 4])
def test_all_sets_but_the_last_of_a_group_are_full(size):
    source = make_source(points_per_set=size)
    query = sample(source, source.num_slots("test"), "test")
    for group, total in enumerate(TEST_SIZES):
        counts = [
            m.sum()
            for m, g in zip(query.mask, query.groups, strict=True)
            if g[0, 0] == group and m.any()
        ]
        full, rest = divmod(total, size)
        assert sorted(counts, reverse=True) == [size] * full + [rest] * (rest > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboveAverage(Learner):
    """Class 1 for the points of a set above its mean, 0 for the others."""

    def init(self, key, example):
        return (), ()

    def adapt(self, params, model_state, support, key):
        return support.mean()

    def loss(self, params, model_state, task, key):
        raise NotImplementedError

    def evaluate(self, params, model_state, task, key):
        query = task.query
        values = query.inputs[..., 0]
        count = jnp.maximum(query.mask.sum(-1, keepdims=True), 1)
        mean = jnp.where(query.mask, values, 0.0).sum(-1, keepdims=True) / count
        right = (values > mean) == (query.targets > 0)
        return {"accuracy": Mean.of(right, query.mask)}


def by_numpy(source):
    """Accuracy of every test group: its points in sets of K, the last one smaller."""
    points = source.read()["test"]
    found = []
    for rows, size in zip(points.members, points.sizes, strict=True):
        right = []
        for start in range(0, size, source.points_per_set):
            batch = rows[start : min(start + source.points_per_set, size)]
            values = points.inputs[batch, 0].astype(np.float64)
            right += ((values > values.mean()) == (points.targets[batch] > 0)).tolist()
        assert len(right) == size
        found.append(np.mean(right))
    return np.array(found)


@pytest.mark.parametrize("parallel", [Parallel(), Parallel(backend="vmap")], ids=str)
@pytest.mark.parametrize("size", [2, 4, 16])
def test_accuracy_of_every_group(size, parallel):
    source = make_source(points_per_set=size)
    evaluator = make_evaluator(
        AboveAverage(), source, parallel=parallel, tasks_per_batch=8
    )
    values = evaluator((), (), KEY, source.num_slots("test"))
    expected = by_numpy(source)
    assert len(set(expected.tolist())) > 2
    np.testing.assert_allclose(values["accuracy"], expected, rtol=1e-6)


def test_worst_and_average_are_over_groups():
    source = make_source(points_per_set=4)
    num_slots, expected = source.num_slots("test"), by_numpy(source)
    result = evaluate(AboveAverage(), (), (), source, key=KEY, num_tasks=num_slots)
    accuracy = result["accuracy"]
    assert accuracy.count == 4
    np.testing.assert_allclose(accuracy.smallest, expected.min(), rtol=1e-6)
    np.testing.assert_allclose(accuracy.mean, expected.mean(), rtol=1e-6)
    # Neither the mean over sets nor the mean over points.
    pooled = np.average(expected, weights=TEST_SIZES)
    assert abs(pooled - expected.mean()) > 0.01


# --- what is refused ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoClasses(GroupSource):
    """A source that says that it has two classes, and has what it is given."""

    targets: tuple[int, ...]

    @property
    def num_classes(self):
        return 2

    def groups(self):
        targets = np.array(self.targets)
        points = group_points(np.zeros((len(targets), 1)), targets, targets * 0)
        return dict.fromkeys(("train", "validation", "test"), points)


def test_classes_of_your_own_arrays_are_those_of_all_splits():
    source = ArrayGroups(
        inputs=np.zeros((3, 2)),
        targets=np.array([0, 1, 7]),
        group_ids=np.arange(3),
        held_out=((1,), (2,)),
    )
    assert source.num_classes == 8
    assert source.read()["test"].targets.tolist() == [7]


def test_a_class_outside():
    assert isinstance(TwoClasses(targets=(0, 1)).read()["train"], Groups)
    with one_line(DataError, r"classes must be below 2, got 2"):
        TwoClasses(targets=(0, 2)).read()


@contextlib.contextmanager
def one_line(kind, match):
    """`pytest.raises`, for a message of one line."""
    with pytest.raises(kind, match=match) as error:
        yield
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lengths", "told"),
    [((0, 0, 0), r"\(0, 0, 0\)"), ((3, 2, 3), r"\(3, 2, 3\)"), ((3, 3, 4), "3, 3, 4")],
)
def test_lengths(lengths, told):
    inputs, targets, groups = (np.zeros(n, int) for n in lengths)
    with one_line(DataError, f"there: .*at least one, got .*{told}"):
        group_points(inputs, targets, groups, where="there")


@pytest.mark.parametrize("which", ["inputs", "targets", "group_ids"])
def test_lengths_of_your_own_arrays(which):
    source = make_source()
    short = {which: getattr(source, which)[:-1]}
    with one_line(DataError, "equally many"):
        dataclasses.replace(source, **short).read()


@pytest.mark.parametrize(
    "targets",
    [
        np.array([0, -1]),
        np.array([0.0, 1.0]),
        np.array([[0], [1]]),
        np.array([0, 2**40]),
    ],
)
def test_classes_that_are_none(targets):
    with one_line(DataError, "targets must be one class from 0 to 2147483647 a point"):
        group_points(np.zeros((2, 1)), targets, np.zeros(2, int))


@pytest.mark.usefixtures("untyped")
def test_lists_are_arrays_if_they_are_of_one_shape():
    source = make_source()
    lists = dataclasses.replace(source, inputs=list(source.inputs))
    for split, points in source.read().items():
        np.testing.assert_array_equal(lists.read()[split].inputs, points.inputs)
    several = [*source.inputs[:-1], np.zeros((9, 9))]
    with one_line(DataError, "inputs must be numbers of one shape, got several shapes"):
        dataclasses.replace(source, inputs=several).read()


@pytest.mark.usefixtures("untyped")
def test_held_out_names_that_are_no_tuples():
    with one_line(DataError, r"held_out must be two tuples .*got \('val', 'test0'\)"):
        dataclasses.replace(make_source(), held_out=("val", "test0")).read()


def test_a_held_out_group_without_points():
    source = dataclasses.replace(make_source(), held_out=(("val",), ("nobody",)))
    with one_line(DataError, r"held_out names groups without points: .*nobody"):
        source.read()


@pytest.mark.parametrize("held_out", [((), ("test0",)), (("val",), ())])
def test_a_split_without_points(held_out):
    source = dataclasses.replace(make_source(), held_out=held_out)
    split = "test" if held_out[0] else "validation"
    with one_line(DataError, f"{split}: .*at least one"):
        source.read()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points_per_set", 0),
        ("points_per_set", MOST_POINTS + 1),
        ("sets_per_task", 0),
        ("sets_per_task", 1001),
    ],
)
def test_numbers_outside_their_range(field, value):
    with one_line(ValueError, f"{field} must be from 1 to .*, got {value}"):
        make_source(**{field: value})


@pytest.mark.usefixtures("untyped")
def test_an_unknown_sampler():
    with one_line(ValueError, "sampler must be one of group, .*, got 'user'"):
        make_source(sampler="user")
