"""What the methods share that predict without a look at the set: training differs."""

import dataclasses

from jaxmeta.core.task import Task
from jaxmeta.core.types import ModelState, Params, PRNGKey
from jaxmeta.networks.norm import STORED
from jaxmeta.shift.learner import ShiftLearner, run, start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unadapted(ShiftLearner):
    """A network that predicts with the statistics stored in training.

    The parameters have `network`, the model state `stats`; subclasses add to them.
    """

    def start_network(
        self, key: PRNGKey, example: Task
    ) -> tuple[dict[str, Params], dict[str, ModelState]]:
        """Parameters and model state of the network alone."""
        params, stats = start(self.network, key, example.query.inputs[0])
        return {"network": params}, {"stats": stats}

    def forward(self, params, model_state, inputs, mask, statistics):
        stats, network = model_state["stats"], params["network"]
        outputs, stats = run(self.network, network, stats, inputs, statistics, mask)
        return outputs, {**model_state, "stats": stats}

    def adapt(self, params, model_state, support, key):
        del params, model_state, support, key
        return ()

    def predict(self, params, model_state, adapted, inputs):
        del adapted
        return self.forward(params, model_state, inputs, None, STORED)[0].logits

    def answer(self, params, model_state, inputs, mask):
        return self.forward(params, model_state, inputs, mask, STORED)[0].logits

    def remember(self, params, model_state):
        del params, model_state
        return ()

    def observe(self, params, model_state, memory, point, seen, share):
        del seen, share
        return memory, self.predict(params, model_state, (), point[None])[0]
