"""Federated rounds: every client trains alone, the server combines what it gets.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
Data (arXiv 1602.05629); q-FedAvg is Li et al., Fair Resource Allocation in Federated
Learning (arXiv 1905.10497), algorithm 2. A client is a task; what it sends back enters
the between-task seam as its gradient:

  d_k = (w - w_k) / rate,

beside the loss F_k of the server's model on the client's data. So
`surgery.q_fedavg(q, rate)` before `optax.sgd(1.0)` is q-FedAvg, and `mean_over_tasks()`
before `optax.sgd(rate)` is FedAvg.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.loops import scan
from jaxmeta.core.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalSgd(Learner):
    """Some epochs of SGD on a task's own sets; its "gradient" is where they lead to.

    One set of a task is one batch of the client (sampler `client`). Clients of
    different sizes are padded and masked: a batch without points changes nothing. The
    loss is that before training, of all points. Everything else is the wrapped
    learner's.

    Running statistics of batch normalisation do not go well with it: every client has
    its own. Use a network that does not normalise over the batch.

    Raises:
      ValueError: for a rate or number of epochs outside its range.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> from jaxmeta.shift.erm import Erm
      >>> network = ConvNet(num_classes=10, width=8, norm="group")
      >>> client = LocalSgd(learner=Erm(network=network), rate=0.1, epochs=1)
    """

    learner: Learner
    """What every client trains; its tasks have a query of sets."""

    rate: float = 0.1
    """Learning rate of the clients."""

    epochs: int = 1
    """How often a client goes through its sets, >= 1."""

    def __post_init__(self):
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate must be positive and finite, got {self.rate}.")
        if self.epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {self.epochs}.")

    def init(self, key, example):
        return self.learner.init(key, example)

    def adapt(self, params, model_state, support, key):
        return self.learner.adapt(params, model_state, support, key)

    def evaluate(self, params, model_state, task: Task, key):
        return self.learner.evaluate(params, model_state, task, key)

    def loss(self, params, model_state, task: Task, key):
        loss_key, train_key = jax.random.split(key)
        loss, (metrics, model_state) = self.learner.loss(
            params, model_state, task, loss_key
        )
        moved = self._train(params, model_state, task, train_key)
        sent = jax.tree.map(lambda w, v: (w - v) / self.rate, params, moved)
        sent = jax.lax.stop_gradient(sent)
        # A function whose value is the loss and whose gradient is what is sent.
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(sent), strict=True)
        linear = sum(jnp.vdot(w - jax.lax.stop_gradient(w), d) for w, d in pairs)
        return jax.lax.stop_gradient(loss) + linear, (metrics, model_state)

    def _train(self, params, model_state, task: Task, key):
        """The parameters after all epochs, every set one step."""

        def step(params, at):
            batch, key = at
            alone = task._replace(query=jax.tree.map(lambda x: x[None], batch))
            loss = lambda params: self.learner.loss(params, model_state, alone, key)[0]
            there = batch.mask.any()
            move = lambda w, g: jnp.where(there, w - self.rate * g, w)
            return jax.tree.map(move, params, jax.grad(loss)(params)), None

        num_sets = len(task.query.targets)

        def epoch(params, key):
            order_key, *keys = jax.random.split(key, num_sets + 1)
            order = jax.random.permutation(order_key, num_sets)
            sets = jax.tree.map(lambda leaf: leaf[order], task.query)
            return scan(step, params, (sets, jnp.stack(keys)))

        keys = jax.random.split(key, self.epochs)
        start = jax.lax.stop_gradient(params)
        return scan(epoch, start, keys)[0]
