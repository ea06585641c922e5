"""Small sets of small images, and the four learners on them."""

import functools

import jax
import jax.numpy as jnp
from arm_reference import shaken

from jaxmeta.core.task import Task
from jaxmeta.data.groups import Points
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.erm import Erm

NUM_CLASSES = 3
LARGE = ConvNet(num_classes=NUM_CLASSES, width=3)
SMALL = ConvNet(num_classes=NUM_CLASSES, width=3, large=False)
CONTEXT = ContextNet(channels=2, width=2)
KEY = jax.random.key(0)

LEARNERS = {
    "erm": Erm(network=LARGE),
    "cml running": ArmCml(network=SMALL, context=CONTEXT),
    "cml set": ArmCml(network=SMALL, context=CONTEXT, norm_stats="set"),
    "bn": ArmBn(network=SMALL),
    "ll": ArmLl(network=SMALL),
}


def images(seed, *shape):
    """`[*shape, 16, 16, 1]`, of a brightness and contrast that differ between sets."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (*shape, 16, 16, 1))
    per_set = (*shape[:-1], 1, 1, 1, 1)
    scale = jax.random.uniform(keys[1], per_set, minval=0.5, maxval=2.0)
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(
        jax.random.normal(keys[2], per_set), x.shape
    )


def make_task(seed, num_sets=2, num_points=4, groups=None):
    """A task of labelled sets; `groups` `[set, point]`, else each set is a group."""
    shape = (num_sets, num_points)
    if groups is None:
        groups = jnp.broadcast_to(jnp.arange(num_sets)[:, None], shape)
    targets = jax.random.randint(jax.random.key(seed + 100), shape, 0, NUM_CLASSES)
    points = Points(images(seed, *shape), targets, groups, jnp.ones(shape, bool))
    return Task(support=(), query=points, task_id=jnp.array(0))


@functools.cache
def trained(learner):
    """Parameters and statistics that are nothing special: not zero, not one."""
    params, state = jax.jit(learner.init)(jax.random.key(0), make_task(0))
    if "weights" in state:
        state = {**state, "stats": shaken(state["stats"], 2)}
    else:
        state = shaken(state, 2)
    return shaken(params, 1, size=0.2), state


# Compiled once for all learners that are equal.


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(learner, params, state, task):
    """`((loss, (metrics, next state)), gradient)` of a task."""
    of = jax.value_and_grad(learner.loss, has_aux=True)
    return of(params, state, task, KEY)


@functools.partial(jax.jit, static_argnums=0)
def answer(learner, params, state, inputs, mask):
    """Logits of a set."""
    return learner.answer(params, state, inputs, mask)


@functools.partial(jax.jit, static_argnums=0)
def adapt(learner, params, state, support):
    """What a learner becomes after a set."""
    return learner.adapt(params, state, support, KEY)


@functools.partial(jax.jit, static_argnums=0)
def predict(learner, params, state, adapted, inputs):
    """Logits of other points."""
    return learner.predict(params, state, adapted, inputs)
