"""Steps of ARM on the shapes of FEMNIST against PyTorch, and evaluation by group.

A step sees 2 groups of 50 images of 28 x 28 in 62 classes; the network has 128
channels. PyTorch's side is written here as plainly as the method allows: `autograd`,
with `create_graph` for ARM-LL. Its data are drawn beforehand, and so are ours; what
drawing them costs is measured beside. All sides of a comparison run in turn, forwards
and backwards.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Parallel, init_state, make_train_step, mean_over_tasks
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.task import draw_on_shards
from jaxmeta.data.groups import ArrayGroups
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.erm import Erm

SETS, POINTS, CLASSES, WIDTH = 2, 50, 62, 128
RATE, MOMENTUM, ROUNDS = 1e-2, 0.9, 6
KEY = jax.random.key(0)
LEARNERS = {
    "ERM": Erm(network=ConvNet(num_classes=CLASSES, width=WIDTH)),
    "ARM-CML": ArmCml(
        network=ConvNet(num_classes=CLASSES, width=WIDTH, large=False),
        context=ContextNet(channels=1, width=WIDTH // 2),
    ),
    "ARM-BN": ArmBn(network=ConvNet(num_classes=CLASSES, width=WIDTH)),
    "ARM-LL": ArmLl(network=ConvNet(num_classes=CLASSES, width=WIDTH)),
}
TARGETS = {"ERM": 0.5, "ARM-CML": 0.6, "ARM-BN": 0.5, "ARM-LL": 0.4}


def groups_of(num_groups, size, shape, num_classes, **settings):
    """Bytes at random, as many in every group; the first is all that is trained on."""
    rng = np.random.default_rng(0)
    total = num_groups * size
    return ArrayGroups(
        inputs=rng.integers(0, 256, (total, *shape), np.uint8),
        targets=np.arange(total) % num_classes,
        group_ids=np.repeat(np.arange(num_groups), size),
        **settings,
    )


def cpu_seconds(runs, rounds=ROUNDS):
    """`{name: [round]}`; they take turns, A B B A."""
    for run in runs.values():
        run()  # compiles and warms up
    spent = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs)[:: -1 if i % 2 else 1]:
            started = time.process_time()
            runs[name]()
            spent[name].append(time.process_time() - started)
    return spent


class Ours:
    """The step of the harness, on one batch again and again."""

    def __init__(self, learner, tasks, parallel):
        aggregator, tx = mean_over_tasks(), optax.sgd(RATE, MOMENTUM)
        example = jax.tree.map(lambda leaf: leaf[0], tasks)
        self.state = init_state(learner, tx, aggregator, key=KEY, example=example)
        step = make_train_step(learner, tx, aggregator, parallel=parallel)
        self.tasks, self.step = tasks, jax.jit(step, donate_argnums=0)

    def __call__(self):
        self.state, metrics = self.step(self.state, self.tasks, KEY)
        jax.block_until_ready(self.state)
        return float(metrics["loss"].compute())


class Torch:
    """The same step in PyTorch, from the same weights and on the same images."""

    def __init__(self, torch, method, ours):
        torch.set_num_threads(1)
        self.torch, self.losses = torch, getattr(self, method.replace("-", "_"))
        self.weights = self._tensors(ours.state.params)
        leaves = jax.tree.leaves(self.weights)
        self.stats = {}
        self.sgd = torch.optim.SGD(leaves, lr=RATE, momentum=MOMENTUM)
        query = ours.tasks.query
        # One channel: the order of axes is the same to both.
        images = np.array(query.inputs).reshape(SETS, POINTS, 1, 28, 28)
        targets = np.array(query.targets).reshape(SETS, POINTS)
        self.x, self.y = torch.tensor(images), torch.tensor(targets, dtype=torch.long)

    def _tensors(self, params):
        def tensor(leaf):
            leaf = np.array(leaf)
            leaf = leaf.transpose(3, 2, 0, 1).copy() if leaf.ndim == 4 else leaf
            return self.torch.tensor(leaf).requires_grad_()

        return jax.tree.map(tensor, params)

    def __call__(self):
        self.sgd.zero_grad()
        total = sum(self.losses())  # each has gone backward
        self.sgd.step()
        return total

    def _back(self, logits, targets, share=1.0):
        loss = share * self.torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        return loss.item()

    def _convolve(self, x, layer, padding):
        convolve = self.torch.nn.functional.conv2d
        return convolve(x, layer["kernel"], layer["bias"], padding=padding)

    def _block(self, x, block, padding, name):
        functional, norm = self.torch.nn.functional, block["BatchNorm_0"]
        x = self._convolve(x, block["Conv5x5_0"], padding)
        # Running statistics, which no loss here depends on, are kept as ours are.
        if name is None:
            running = (None, None)
        elif (running := self.stats.get(name)) is None:
            count = x.shape[1]
            running = (self.torch.zeros(count), self.torch.ones(count))
            self.stats[name] = running
        return functional.relu(
            functional.batch_norm(
                x, *running, norm["scale"], norm["bias"], True, 0.1, 1e-5
            )
        )

    def _classify(self, weights, x, name="network"):
        functional = self.torch.nn.functional
        blocks = [block for key, block in weights.items() if key.startswith("_Block")]
        for i, block in enumerate(blocks):
            large = len(blocks) == 3 and i == 0
            x = self._block(x, block, 2 if large else 0, name and f"{name}{i}")
            x = x if large else functional.max_pool2d(x, 2)
        linear = lambda x, layer: x @ layer["kernel"] + layer["bias"]
        x = functional.relu(linear(x.mean((2, 3)), weights["Dense_0"]))
        return linear(x, weights["Dense_1"])

    def ERM(self):
        logits = self._classify(self.weights["network"], self.x.flatten(0, 1))
        yield self._back(logits, self.y.flatten())

    def ARM_CML(self):
        context, x = self.weights["context"], self.x.flatten(0, 1)
        for i in range(2):
            x = self._block(x, context[f"_Block_{i}"], 2, f"context{i}")
        x = self._convolve(x, context["Conv5x5_0"], 2)
        mean = x.unflatten(0, (SETS, POINTS)).mean(1, keepdim=True)
        together = self.torch.cat([self.x, mean.expand_as(self.x)], dim=2)
        logits = self._classify(self.weights["network"], together.flatten(0, 1))
        yield self._back(logits, self.y.flatten())

    def ARM_BN(self):
        for x, y in zip(self.x, self.y, strict=True):
            yield self._back(self._classify(self.weights, x), y, 1 / SETS)

    def ARM_LL(self):
        functional = self.torch.nn.functional
        network, mlp = self.weights["network"], self.weights["loss"]["MLP_0"]
        leaves, tree = jax.tree.flatten(network)
        for x, y in zip(self.x, self.y, strict=True):
            values = self._classify(network, x, None)
            for i in range(4):
                values = functional.relu(values) if i else values
                values = (
                    values @ mlp[f"Dense_{i}"]["kernel"] + mlp[f"Dense_{i}"]["bias"]
                )
            norm = self.torch.linalg.vector_norm(values)
            grads = self.torch.autograd.grad(norm, leaves, create_graph=True)
            moved = [w - 0.1 * g for w, g in zip(leaves, grads, strict=True)]
            logits = self._classify(jax.tree.unflatten(tree, moved), x)
            yield self._back(logits, y, 1 / SETS)


def assert_same_step(ours, torch_step):
    """Both lose the same, and move the weights the same way."""
    before = jax.tree.map(np.array, ours.state.params)
    np.testing.assert_allclose(ours(), torch_step(), rtol=1e-4)
    moved = jax.tree.map(lambda new, old: new - old, ours.state.params, before)
    theirs = jax.tree.map(lambda w: w.detach().numpy(), torch_step.weights)
    for leaf, old, new in zip(
        *map(jax.tree.leaves, (moved, before, theirs)), strict=True
    ):
        new = new.transpose(2, 3, 1, 0) if new.ndim == 4 else new
        # Of float32 sums over 40,000 pixels; the weights move by a hundredth of the
        # gradient, and some (biases before a normalisation) not at all.
        error = np.linalg.norm(leaf - (new - old))
        assert error < 2e-2 * np.linalg.norm(new - old) + 1e-5


@pytest.fixture(scope="module")
def source():
    """As many bytes as FEMNIST has training images, at random."""
    return groups_of(
        262,
        230,
        (28, 28, 1),
        CLASSES,
        held_out=((260,), (261,)),
        points_per_set=POINTS,
        sets_per_task=SETS,
    )


def forms_of(method, tasks):
    """Ours, in all forms that there are; the first is the one that is recommended."""
    learner, together = LEARNERS[method], Parallel(backend="vmap")
    if method != "ARM-LL":
        return {"jaxmeta": Ours(learner, tasks, together)}
    apart = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), tasks.query)
    apart = tasks._replace(query=apart, task_id=jnp.zeros(SETS, jnp.int32))
    return {
        "jaxmeta, loop": Ours(learner, apart, Parallel(backend="loop")),
        "jaxmeta, vmap": Ours(learner, tasks, together),
    }


@pytest.mark.parametrize("method", LEARNERS)
def test_cpu_time_of_a_training_step(method, source, table):
    slots, data = jnp.arange(1), source.load()
    sample = jax.jit(draw_on_shards(source, Parallel(backend="vmap"), "train"))
    draw = lambda: jax.block_until_ready(sample(data, KEY, slots))
    runs = forms_of(method, draw())
    first = next(iter(runs))
    reason = ""
    try:
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        runs["PyTorch"] = Torch(torch, method, runs[first])
        assert_same_step(runs[first], runs["PyTorch"])
    except pytest.skip.Exception as skipped:
        reason = f": {skipped}"
    spent = cpu_seconds(runs)
    drawn = min(cpu_seconds({"draw": lambda: [draw() for _ in range(20)]})["draw"]) / 20
    rows = [("", "CPU s, median", "least", "PyTorch / ours")]
    for name, seconds in spent.items():
        ratio = "-"
        if "PyTorch" in spent:
            # Of rounds side by side.
            ratio = f"{np.median(np.divide(spent['PyTorch'], seconds)):.2f}"
        rows.append((name, f"{np.median(seconds):.3f}", f"{min(seconds):.3f}", ratio))
    share = drawn / np.median(spent[first])
    rows += [
        ("target, at least", "", "", f"{TARGETS[method]:.2f}"),
        ("drawing the task", f"{drawn:.4f}", f"{share:.1%}", "(target: at most 10 %)"),
    ]
    table(f"{method}, {SETS} x {POINTS} images, width {WIDTH}{reason}", rows)
    assert all(np.isfinite(seconds).all() for seconds in spent.values())


SETS_AT_A_TIME = 14
SMALL = {
    "NormMLP, 300 groups of 20": (
        ArmBn(network=NormMLP(features=(32,), num_classes=5)),
        groups_of(
            302, 20, (16,), 5, held_out=((300,), tuple(range(300))), points_per_set=20
        ),
    ),
    "ConvNet of width 16, 35 groups of 100": (
        ArmBn(network=ConvNet(num_classes=CLASSES, width=16)),
        groups_of(
            37,
            100,
            (28, 28, 1),
            CLASSES,
            held_out=((35,), tuple(range(35))),
            points_per_set=50,
        ),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_cpu_time_of_an_evaluation(name, table):
    """All groups in one call against a loop over groups and batches of each."""
    learner, source = SMALL[name]
    params, model_state = learner.init(KEY, source.example)
    num_slots, data = source.num_slots("test"), source.load()
    sizes, parallel = source.sizes("test"), Parallel(backend="vmap")

    def in_calls_of(num_sets):
        evaluate = make_evaluator(
            learner, source, parallel=parallel, tasks_per_batch=num_sets
        )
        return lambda: evaluate(params, model_state, KEY, num_slots)["accuracy"]

    @jax.jit
    def one(params, model_state, data, slot):
        task = source.sample_task(data, KEY, slot, split="test")
        with jax.default_matmul_precision("highest"):
            return learner.evaluate(params, model_state, task, KEY)["accuracy"]

    def looped():
        found = []
        for group in range(len(sizes)):
            slots = range(group, num_slots, len(sizes))
            means = [one(params, model_state, data, slot) for slot in slots]
            found.append(sum(float(mean.total) for mean in means) / sizes[group])
        return np.array(found)

    runs = {
        "one call": in_calls_of(num_slots),
        f"calls of {SETS_AT_A_TIME} sets": in_calls_of(SETS_AT_A_TIME),
        "Python loop, a call a set": looped,
    }
    for run in runs.values():
        # Whole points out of at least 20; some logits nearly tie.
        np.testing.assert_allclose(run(), looped(), atol=1 / sizes.min() + 1e-6)
    spent = cpu_seconds(runs)
    slow, target = spent["Python loop, a call a set"], "(target: at least 3)"
    rows = [("", "CPU ms", "loop / this")]
    for run, seconds in spent.items():
        ratio = f"{np.median(np.divide(slow, seconds)):.1f}"
        rows.append((run, f"{1e3 * np.median(seconds):.1f}", f"{ratio} {target}"))
        target = ""
    table(f"Evaluation, {name}", rows)
    assert all(np.isfinite(seconds).all() for seconds in spent.values())
