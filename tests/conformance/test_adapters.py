"""What test-time adaptation does on every backend; the learner is trained as ever."""

import jax
import numpy as np
import pytest

from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.parallel import Parallel
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.shift.adaptation import (
    Adapting,
    BatchStatistics,
    Eata,
    Lame,
    Memo,
    ResetEvery,
    RunningStatistics,
    Sar,
)
from jaxmeta.shift.erm import Erm

KEY = jax.random.key(0)
SETS = RotatedDigits(image_size=16, points_per_set=6)
ERM = Erm(network=NormMLP(features=(6,), num_classes=10))
ADAPTERS = {
    "bn": BatchStatistics(),
    "bn-alpha": BatchStatistics(prior=16.0),
    "bn-ema": RunningStatistics(),
    "memo": Memo(),
    "lame": Lame(),
    "sar": Sar(),
    "eata": Eata(),
    "rdumb": ResetEvery(adapter=Eata(), every=2),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_backends_agree_on_what_is_answered(name):
    learner = Adapting(learner=ERM, adapter=ADAPTERS[name])
    params, model_state = learner.init(KEY, SETS.example)

    def measured(backend):
        evaluate = make_evaluator(
            learner, SETS, parallel=Parallel(backend=backend), tasks_per_batch=4
        )
        return evaluate(params, model_state, KEY, 4)

    by_loop = measured("loop")
    assert by_loop["loss"].shape == (4,)
    for backend in ("vmap", "shard_map"):
        found = measured(backend)
        for metric, values in by_loop.items():
            assert np.isfinite(values).all()
            # Float32 losses of a few nats, through steps of descent.
            np.testing.assert_allclose(found[metric], values, atol=1e-4)
