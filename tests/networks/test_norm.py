import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.norm import (
    OWN,
    STORED,
    TRAINING,
    BatchNorm,
    Statistics,
    mix,
)

KEYS = jax.random.split(jax.random.key(0), 8)
X = 2.0 + 3.0 * jax.random.normal(KEYS[0], (5, 4, 4, 3))
PARAMS = {"scale": jnp.array([0.5, 2.0, -1.5]), "bias": jnp.array([1.0, 0.0, -2.0])}
BEFORE = {"mean": jnp.array([1.0, -2.0, 4.0]), "var": jnp.array([0.5, 9.0, 2.0])}


def norm(x, statistics, mask=None, *, stats=BEFORE, params=PARAMS, epsilon=1e-5):
    """The normalised batch and what is stored after it."""
    y, updated = BatchNorm(epsilon=epsilon).apply(
        {"params": params, "batch_stats": stats},
        x,
        statistics,
        mask,
        mutable=["batch_stats"],
    )
    return y, updated["batch_stats"]


def by_hand(x, mean, var, epsilon=1e-5):
    scale, bias = (np.asarray(PARAMS[name]) for name in ("scale", "bias"))
    return scale * (np.asarray(x) - mean) / np.sqrt(var + epsilon) + bias


def moments(x):
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return x.mean(0), x.var(0)


# --- whose statistics -----------------------------------------------------------------


def test_four_numbers():
    x = jnp.array([[1.0], [2.0], [3.0], [6.0]])  # mean 3, variance (4+1+0+9)/4 = 3.5
    params = {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}
    stats = {"mean": jnp.array([1.0]), "var": jnp.array([4.0])}
    y, after = norm(x, TRAINING, stats=stats, params=params, epsilon=0.5)
    # The variance and epsilon are 4, so that the scale is one.
    np.testing.assert_allclose(y[:, 0], [-1.0, 0.0, 1.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(after["mean"], [0.9 * 1.0 + 0.1 * 3.0], rtol=1e-6)
    np.testing.assert_allclose(after["var"], [0.9 * 4.0 + 0.1 * 3.5], rtol=1e-6)
    y, after = norm(x, STORED, stats=stats, params=params, epsilon=5.0)
    np.testing.assert_allclose(y[:, 0], [1.0, 5 / 3, 7 / 3, 13 / 3], rtol=1e-6)
    assert (after["mean"].item(), after["var"].item()) == (1.0, 4.0)


@pytest.mark.parametrize("shape", [(6, 3), (5, 7, 3), (5, 4, 4, 3)])
def test_any_number_of_axes(shape):
    x = jax.random.normal(KEYS[1], shape)
    mean, var = moments(x)
    y, after = norm(x, OWN)
    np.testing.assert_allclose(y, by_hand(x, mean, var), atol=1e-5)
    np.testing.assert_allclose(after["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(after["var"], var, atol=1e-6)


def test_stored_statistics_are_used_and_kept_as_they_are():
    y, after = norm(X, STORED)
    expected = by_hand(X, np.asarray(BEFORE["mean"]), np.asarray(BEFORE["var"]))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, BEFORE)


def test_nothing_is_kept_that_is_not_mutable():
    variables = {"params": PARAMS, "batch_stats": BEFORE}
    y = BatchNorm().apply(variables, X, TRAINING)
    np.testing.assert_array_equal(y, norm(X, TRAINING)[0])


def test_initial_statistics_are_not_those_of_the_example():
    variables = BatchNorm().init(jax.random.key(0), X, OWN)
    stats = variables["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(stats["var"], [1.0, 1.0, 1.0])


@pytest.mark.parametrize("pooled", [False, True])
def test_a_batch_of_sets_is_the_sets_one_by_one(pooled):
    x = jax.random.normal(KEYS[4], (6, 4, 4, 3)) + jnp.arange(6.0)[:, None, None, None]
    mask = jnp.array([True, True, False, True, False, False])
    statistics = Statistics(use=0.7, keep=0.4, pooled=pooled)
    apart = [
        norm(x[i : i + 2], statistics, mask[i : i + 2]) for i in range(0, len(x), 2)
    ]
    y, after = norm(x, dataclasses.replace(statistics, sets=3), mask)
    np.testing.assert_allclose(y, np.concatenate([one for one, _ in apart]), rtol=1e-5)
    for name in ("mean", "var"):
        mean = np.mean([kept[name] for _, kept in apart], axis=0)
        np.testing.assert_allclose(after[name], mean, rtol=1e-5)


def test_epsilon_is_that_of_torch():
    x = jnp.array([[0.0], [0.002]])  # variance 1e-6
    params = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
    stats = {"mean": jnp.zeros(1), "var": jnp.zeros(1)}
    y, _ = BatchNorm().apply(
        {"params": params, "batch_stats": stats}, x, OWN, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(y[:, 0], [-0.30151, 0.30151], rtol=1e-4)  # /sqrt(1.1e-5)


# --- beside torch ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (5, 4, 4, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_torch(training, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = 1.0 + 2.0 * jax.random.normal(KEYS[2], shape)
    y, after = norm(x, TRAINING if training else STORED)
    tensor = lambda leaf: torch.tensor(np.array(leaf))
    mean, var = tensor(BEFORE["mean"]), tensor(BEFORE["var"])
    theirs = torch.nn.functional.batch_norm(
        torch.movedim(tensor(x), -1, 1),
        mean,
        var,
        *map(tensor, (PARAMS["scale"], PARAMS["bias"])),
        training=training,
        momentum=0.1,
        eps=1e-5,
    )
    np.testing.assert_allclose(y, torch.movedim(theirs, 1, -1), atol=2e-5)
    np.testing.assert_allclose(after["mean"], mean, rtol=1e-5)
    # Torch normalises with the biased variance and stores the unbiased one. Ours stores
    # the biased one, so that what is stored is what was used.
    n = x.size // 3
    unbiased = 0.9 * BEFORE["var"] + (after["var"] - 0.9 * BEFORE["var"]) * n / (n - 1)
    np.testing.assert_allclose(unbiased if training else after["var"], var, rtol=1e-5)


def test_gradients_agree_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    weights = jax.random.normal(KEYS[3], X.shape)
    got = jax.grad(
        lambda x, params: (
            weights * jnp.sin(norm(x, TRAINING, params=params)[0])
        ).sum(),
        (0, 1),
    )(X, PARAMS)
    tensor = lambda leaf: torch.tensor(np.array(leaf, np.float64), requires_grad=True)
    x, scale, bias = map(tensor, (X, PARAMS["scale"], PARAMS["bias"]))
    y = torch.nn.functional.batch_norm(
        x.permute(0, 3, 1, 2), None, None, scale, bias, training=True, eps=1e-5
    ).permute(0, 2, 3, 1)
    (torch.tensor(np.array(weights)) * torch.sin(y)).sum().backward()
    for ours, theirs in zip(
        (got[0], got[1]["scale"], got[1]["bias"]), (x, scale, bias), strict=True
    ):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-3, atol=1e-4)


# --- gradients by hand ----------------------------------------------------------------


def test_gradient_through_the_batch_statistics():
    # Ioffe and Szegedy, section 3: with g the error and z the normalised input,
    # dx = scale / sd (g - mean(g) - z mean(g z)).
    error = np.asarray(jax.random.normal(KEYS[4], X.shape), np.float64)
    got = jax.grad(lambda x: (jnp.asarray(error, jnp.float32) * norm(x, OWN)[0]).sum())(
        X
    )
    mean, var = moments(X)
    z = (np.asarray(X, np.float64) - mean) / np.sqrt(var + 1e-5)
    over = lambda v: v.mean((0, 1, 2))
    expected = error - over(error) - z * over(error * z)
    expected *= np.asarray(PARAMS["scale"]) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_stored_statistics_let_the_gradient_of_a_point_alone():
    gradient = jax.grad(lambda x: norm(x, STORED)[0][0].sum())(X)
    slope = np.asarray(PARAMS["scale"]) / np.sqrt(np.asarray(BEFORE["var"]) + 1e-5)
    np.testing.assert_allclose(
        gradient[0], np.broadcast_to(slope, X[0].shape), rtol=1e-5
    )
    np.testing.assert_array_equal(gradient[1:], 0.0)


@pytest.mark.parametrize("statistics", [TRAINING, OWN])
def test_what_is_kept_has_its_gradient(statistics):
    """A query set may be normalised by what is kept of the support set."""
    mean, var = (
        jax.grad(lambda x, name=name: norm(x, statistics)[1][name].sum())(X)
        for name in ("mean", "var")
    )
    count = X.size // X.shape[-1]
    np.testing.assert_allclose(mean, statistics.keep / count, rtol=1e-5)
    centred = X - np.asarray(X).mean(tuple(range(X.ndim - 1)), keepdims=True)
    expected = statistics.keep * 2 * centred / count
    np.testing.assert_allclose(var, expected, rtol=1e-4, atol=1e-6)


def test_no_gradient_into_stored_statistics_that_are_not_used():
    used = lambda stats: (X * norm(X, OWN, stats=stats)[0]).sum()
    gradient = jax.grad(used)(BEFORE)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), gradient)


# --- shares ---------------------------------------------------------------------------


def test_a_share_of_both():
    (mean, var), old = moments(X), {k: np.asarray(v) for k, v in BEFORE.items()}
    y, after = norm(X, Statistics(use=0.25, keep=0.75))
    expected = by_hand(
        X, 0.75 * old["mean"] + 0.25 * mean, 0.75 * old["var"] + 0.25 * var
    )
    np.testing.assert_allclose(y, expected, atol=2e-5)
    np.testing.assert_allclose(
        after["mean"], 0.25 * old["mean"] + 0.75 * mean, rtol=1e-5
    )
    np.testing.assert_allclose(after["var"], 0.25 * old["var"] + 0.75 * var, rtol=1e-5)


def test_shares_may_be_traced():
    run = jax.jit(lambda use, keep: norm(X, Statistics(use=use, keep=keep)))
    for use, keep in ((0.0, 0.0), (1.0, 0.1), (0.3, 1.0)):
        expected = norm(X, Statistics(use=use, keep=keep))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            run(jnp.array(use), jnp.array(keep)),
            expected,
        )


def test_pooled_variance_is_that_of_the_united_set():
    one, two = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0]])
    both = np.concatenate([one, two])
    found = mix(
        (jnp.array([2.0]), jnp.array([8 / 3])),
        (jnp.array([10.0]), jnp.array([0.0])),
        0.25,
        pooled=True,
    )
    np.testing.assert_allclose(found[0], both.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[1], both.var(0), rtol=1e-6)
    plain = mix(
        (jnp.array([2.0]), jnp.array([8 / 3])),
        (jnp.array([10.0]), jnp.array([0.0])),
        0.25,
    )
    np.testing.assert_allclose(plain[0], [4.0], rtol=1e-6)
    np.testing.assert_allclose(plain[1], [2.0], rtol=1e-6)


def test_a_pooled_stream_has_the_statistics_of_all_it_saw():
    steps = jnp.arange(1.0, 13.0)
    drift = 0.5 * steps.reshape(-1, 1, 1)
    stream = drift + jax.random.normal(KEYS[5], (12, 4, 3))
    stats, used = BEFORE, []
    for t in range(12):
        share = 1.0 / (t + 1)
        y, stats = norm(stream[t], Statistics(share, share, pooled=True), stats=stats)
        seen = moments(stream[: t + 1])
        np.testing.assert_allclose(y, by_hand(stream[t], *seen), atol=1e-4)
        used.append(seen)
    np.testing.assert_allclose(stats["mean"], used[-1][0], rtol=1e-5)
    np.testing.assert_allclose(stats["var"], used[-1][1], rtol=1e-5)
    # The variances within batches say nothing of the drift, so it is not their mean.
    within = np.asarray(stream).var(1).mean(0)
    assert (np.asarray(stats["var"]) > 2 * within).all()


def test_both_ends_are_exact():
    # Stored statistics that are large leave no rounding in the batch's own, and others
    # that are not finite do not reach those that are used.
    large = (jnp.array([3e3]), jnp.array([1e5]))
    small = (jnp.array([1e-3]), jnp.array([1e-4]))
    for pooled in (False, True):
        np.testing.assert_array_equal(mix(large, small, 1.0, pooled=pooled), small)
        np.testing.assert_array_equal(mix(large, small, 0.0, pooled=pooled), large)


# --- masks ----------------------------------------------------------------------------

MASK = jnp.array([True, False, True, True, False])
REAL = np.flatnonzero(MASK)


@pytest.mark.parametrize("filling", [0.0, 1e4, np.nan])
@pytest.mark.parametrize(
    "statistics", [TRAINING, STORED, OWN, Statistics(0.5, 0.5, True)]
)
def test_padding_does_not_count(statistics, filling):
    x = jnp.where(MASK.reshape(5, 1, 1, 1), X, filling)
    expected, kept = norm(X[REAL], statistics)
    y, after = norm(x, statistics, MASK)
    np.testing.assert_allclose(y[REAL], expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after, kept)


def test_padding_gets_no_gradient_and_changes_none():
    x = jnp.where(MASK.reshape(5, 1, 1, 1), X, 7.0)
    weights = jax.random.normal(KEYS[6], X.shape)

    def loss(x, mask, weights):
        y = jnp.sin(norm(x, OWN, mask)[0])
        rows = True if mask is None else mask.reshape(-1, 1, 1, 1)
        return jnp.where(rows, weights * y, 0.0).sum()

    got = jax.grad(loss)(x, MASK, weights)
    expected = jax.grad(loss)(X[REAL], None, weights[REAL])
    np.testing.assert_allclose(got[REAL], expected, atol=1e-5)
    np.testing.assert_array_equal(got[np.flatnonzero(~MASK)], 0.0)


def test_padding_that_is_nan_leaves_gradients_finite():
    x = jnp.where(MASK.reshape(5, 1, 1, 1), X, jnp.nan)
    loss = lambda x: jnp.where(
        MASK.reshape(5, 1, 1, 1), jnp.sin(norm(x, OWN, MASK)[0]), 0.0
    ).sum()
    expected = jax.grad(lambda x: jnp.sin(norm(x, OWN)[0]).sum())(X[REAL])
    np.testing.assert_allclose(jax.grad(loss)(x)[REAL], expected, atol=1e-5)


def test_a_point_that_is_nan_spoils_no_other_under_stored_statistics():
    x = X.at[1].set(jnp.nan)
    y, _ = norm(x, STORED)
    rest = np.array([0, 2, 3, 4])
    np.testing.assert_allclose(y[rest], norm(X, STORED)[0][rest], atol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("filling", [3.0, np.nan])
def test_a_batch_of_padding_keeps_what_is_stored(filling, pooled):
    x = jnp.full_like(X, filling)
    nobody = jnp.zeros(5, bool)
    y, after = norm(x, Statistics(1.0, 0.1, pooled), nobody)
    jax.tree.map(np.testing.assert_array_equal, after, BEFORE)
    if not np.isnan(filling):
        assert bool(jnp.isfinite(y).all())


def test_a_mask_under_jit_and_vmap():
    x = jnp.stack([X, 2.0 * X])
    masks = jnp.stack([MASK, ~MASK])
    y, after = jax.jit(jax.vmap(lambda x, mask: norm(x, TRAINING, mask)))(x, masks)
    for i in range(2):
        rows = np.flatnonzero(masks[i])
        expected, kept = norm(x[i][rows], TRAINING)
        np.testing.assert_allclose(y[i][rows], expected, atol=1e-5)
        np.testing.assert_allclose(after["var"][i], kept["var"], rtol=1e-5)
