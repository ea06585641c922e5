import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxmeta.surgery import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    DualProj,
    FairGrad,
    NashMTL,
    UPGrad,
)

TASKS = 5


def random_grads(kind, count, seed=0):
    """`[case, task, D]` float32 numbers, so that both precisions see the same."""
    rng = np.random.default_rng(seed)
    size = 3 if kind == "singular" else 8
    grads = rng.standard_normal((count, TASKS, size))
    # a common part that differs from case to case: from conflict to agreement
    grads += rng.uniform(0, 1.5, (count, 1, 1)) * rng.standard_normal((count, 1, size))
    if kind == "dead":
        grads[:, 2] = 0.0
    if kind == "scaled":
        grads *= 10.0 ** rng.uniform(-1.5, 1.5, (count, TASKS, 1))
    return grads.astype("f4").astype("f8")


KINDS = ("plain", "singular", "dead", "scaled")
EVERY_KIND = {kind: random_grads(kind, 8) for kind in KINDS}


CHUNK = 40


@functools.cache
def solver(rule, dtype):
    del dtype  # one compilation each
    return jax.jit(jax.vmap(rule.of_gram))


def weights_of(rule, grads, dtype="f8"):
    """`[case, task]`, from exact Gram matrices rounded to `dtype`; one compilation."""
    grams = (grads @ grads.swapaxes(1, 2)).astype(dtype)
    weights = []
    with jax.enable_x64(dtype == "f8"):
        for start in range(0, len(grams), CHUNK):
            chunk = grams[start : start + CHUNK]
            padded = np.concatenate([chunk, np.repeat(chunk[:1], CHUNK, axis=0)])
            found = solver(rule, dtype)(padded[:CHUNK])
            assert found.dtype == dtype
            weights.append(np.asarray(found, np.float64)[: len(chunk)])
    return np.concatenate(weights)


def all_kinds(rule, dtype):
    pad = lambda grads: np.pad(grads, ((0, 0), (0, 0), (0, 8 - grads.shape[2])))
    joined = np.concatenate([pad(grads) for grads in EVERY_KIND.values()])
    weights = weights_of(rule, joined, dtype)
    return {
        kind: (cases, weights[8 * n : 8 * n + 8])
        for n, (kind, cases) in enumerate(EVERY_KIND.items())
    }


def error(weights, expected, grads):
    """Of the update, over the length of the longest term of the right one."""
    terms = np.linalg.norm(expected[:, None] * grads, axis=1).max()
    return np.linalg.norm((weights - expected) @ grads) / terms


def worst(rule, solve, dtype, kinds=KINDS, *args, **kwargs):
    found = {}
    for kind, (cases, weights) in all_kinds(rule, dtype).items():
        if kind in kinds:
            found[kind] = max(
                error(w, oracles.on_live(solve, grads, *args, **kwargs), grads)
                for grads, w in zip(cases, weights, strict=True)
            )
    return found


def below(errors, tolerance):
    too_large = {k: f"{v:.1e}" for k, v in errors.items() if not v < tolerance}
    assert not too_large, f"errors above {tolerance}: {too_large} of {errors}"


PRECISIONS = [("f8", 1e-6), ("f4", 1e-3)]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_mgda(dtype, tolerance):
    # weights of 1e-6 next to 1, and none is exact to better than rounding of 1
    below(worst(MGDA(), oracles.mgda, dtype, ("scaled",)), 20 * tolerance)
    below(worst(MGDA(), oracles.mgda, dtype, KINDS[:3]), tolerance)
    for _, weights in all_kinds(MGDA(), dtype).values():
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_upgrad(dtype, tolerance):
    below(worst(UPGrad(), oracles.upgrad, dtype), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_dualproj(dtype, tolerance):
    below(worst(DualProj(), oracles.dualproj, dtype), tolerance)


@pytest.mark.parametrize("rule", [UPGrad, DualProj])
def test_mean_divides_by_the_live_tasks(rule):
    total = weights_of(rule(), EVERY_KIND["dead"], "f4")
    mean = weights_of(rule(reduction="mean"), EVERY_KIND["dead"], "f4")
    np.testing.assert_allclose(mean, total / 4, rtol=1e-6)


def has_common_descent(grads):
    """Whether 0 is clearly outside the convex hull of the live gradients."""
    grads = grads[grads.any(axis=1)]
    shortest = oracles.mgda(grads) @ grads
    return np.linalg.norm(shortest) > 1e-2 * np.linalg.norm(grads, axis=1).min()


@functools.cache
def cagrad_reference(kind, n, c):
    return oracles.on_live(oracles.cagrad, EVERY_KIND[kind][n], c, rescale=False)


@functools.cache
def cagrad_value(kind, n, c):
    grads = EVERY_KIND[kind][n]
    return oracles.cagrad_primal(grads[grads.any(axis=1)], c)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "rescale"),
    [("f8", 1e-5, False), ("f4", 2e-3, False), ("f4", 2e-3, True)],
)
def test_cagrad(dtype, tolerance, rescale):
    c = 0.5
    rule = CAGrad(c=c, rescale=rescale)
    errors, counted = {}, 0
    for kind, (cases, weights) in all_kinds(rule, dtype).items():
        for n, (grads, w) in enumerate(zip(cases, weights, strict=True)):
            live = grads[grads.any(axis=1)]
            mean = live.mean(axis=0)
            update = w @ grads * ((1 + c**2) if rescale else 1.0)
            # feasible, and it reaches the optimum of the primal problem
            radius = c * np.linalg.norm(mean)
            assert np.linalg.norm(update - mean) <= radius * (1 + 1e-3)
            scale = np.linalg.norm(live, axis=1).mean() * np.linalg.norm(mean)
            short = cagrad_value(kind, n, c) - (live @ update).min()
            assert abs(short) < 2e-3 * scale, (kind, short / scale)
            if has_common_descent(grads) and kind != "scaled":
                expected = cagrad_reference(kind, n, c)
                expected = expected / (1 + c**2) if rescale else expected
                gap = error(w, expected, grads)
                errors[kind] = max(errors.get(kind, 0.0), gap)
                counted += 1
    below(errors, max(tolerance, 2e-4))  # SLSQP itself is good to 1e-4
    assert counted > 10


def test_cagrad_with_c_0_is_the_mean():
    for grads in (EVERY_KIND["plain"], EVERY_KIND["dead"]):
        weights = weights_of(CAGrad(c=0.0), grads, "f4")
        live = grads.any(axis=2)
        expected = live / live.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights, expected, atol=1e-6)


@functools.cache
def fair_references(alpha):
    """`(kind, case, weights)` wherever a solution exists."""
    return [
        (kind, n, oracles.on_live(oracles.fair, grads, alpha))
        for kind, cases in EVERY_KIND.items()
        for n, grads in enumerate(cases)
        if has_common_descent(grads)
    ]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_nash_and_fairgrad(alpha):
    references = fair_references(alpha)
    assert len(references) > 20
    rules = [FairGrad(alpha=alpha)] + [NashMTL()] * (alpha == 1.0)
    for rule in rules:
        for dtype, tolerance in (("f8", 1e-9), ("f4", 1e-4)):
            found, errors = all_kinds(rule, dtype), {}
            for kind, n, expected in references:
                grads, w = found[kind][0][n], found[kind][1][n]
                errors[kind] = max(errors.get(kind, 0.0), error(w, expected, grads))
                live = grads.any(axis=1)
                assert w[live].min() > 0
                assert (grads[live] @ (w @ grads)).min() > 0
            below(errors, tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "kinds"),
    [("f8", 1e-6, ("plain", "dead", "scaled")), ("f4", 1e-3, ("plain", "dead"))],
)
def test_imtl_g(dtype, tolerance, kinds):
    below(worst(IMTLG(), oracles.imtl_g, dtype, kinds), tolerance)


@pytest.mark.parametrize("ratio", [1e1, 1e2, 1e3])
def test_imtl_g_of_gradients_of_different_length(ratio):
    # orthogonal ones: equal projections mean weights in proportion to 1/length
    weights = IMTLG().of_gram(jnp.diag(jnp.array([1.0, ratio**2])))
    expected = np.array([1.0, 1 / ratio]) / (1 + 1 / ratio)
    np.testing.assert_allclose(weights, expected, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-6), ("f4", 1e-2)])
def test_imtl_g_of_a_singular_gram(dtype, tolerance):
    below(worst(IMTLG(), oracles.imtl_g_singular, dtype, ("singular",)), tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "kinds"), [("f8", 1e-5, KINDS), ("f4", 1e-3, KINDS[:3])]
)
def test_aligned_mtl(dtype, tolerance, kinds):
    below(worst(AlignedMTL(), oracles.aligned_mtl, dtype, kinds), tolerance)


MANY = np.concatenate(
    [
        random_grads("plain", 120, seed=1),
        random_grads("scaled", 40, seed=2),
        np.pad(random_grads("singular", 40, seed=3), ((0, 0), (0, 0), (0, 5))),
    ]
)


@pytest.mark.parametrize("rule", [UPGrad(), DualProj(), MGDA()], ids=repr)
def test_the_update_conflicts_with_no_task(rule):
    weights = weights_of(rule, MANY, "f4")
    updates = np.einsum("nt,ntd->nd", weights, MANY)
    products = np.einsum("nd,ntd->nt", updates, MANY)
    # by the length of the task and of what is summed up
    lengths = np.linalg.norm(MANY, axis=2)
    terms = (weights * lengths).max(axis=1, keepdims=True)
    assert len(MANY) == 200
    assert (products / (lengths * terms)).min() >= -1e-4
    if not isinstance(rule, MGDA):
        assert weights.min() >= 1 - 1e-6


RULES = [
    MGDA(),
    CAGrad(),
    UPGrad(),
    DualProj(),
    IMTLG(),
    AlignedMTL(),
    NashMTL(),
    FairGrad(),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_homogeneous_and_finite_where_little_is_left(rule):
    plain = EVERY_KIND["plain"]
    common = plain + 2.0 * np.ones(8)  # an improving direction exists
    nothing, alone = np.zeros_like(plain), plain * np.eye(5)[0][:, None]
    scales = [1.0, 2.0**-33, 2.0**33]
    cases = [common * s for s in scales] + [nothing, alone]
    weights = weights_of(rule, np.concatenate(cases), "f4").reshape(5, 8, TASKS)
    assert np.isfinite(weights).all()
    for scaled in weights[1:3]:
        np.testing.assert_allclose(scaled, weights[0], rtol=1e-5, atol=1e-7)
    # one task: along its gradient
    assert (weights[4][:, 0] > 0).all()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_relabelling(rule):
    common = EVERY_KIND["plain"] + 2.0 * np.ones(8)
    new = np.array([3, 0, 4, 1, 2])
    both = weights_of(rule, np.concatenate([common, common[:, new]]))
    np.testing.assert_allclose(both[8:], both[:8][:, new], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e3, 1e4])
def test_upgrad_of_two_tasks_of_very_different_length(ratio):
    # cos = -1/2: the weights are 1 + R/2 and 1 + 1/(2R)
    gram = jnp.array([[1.0, -ratio / 2], [-ratio / 2, ratio**2]], jnp.float32)
    weights = jax.jit(UPGrad().of_gram)(gram)
    expected = [1 + ratio / 2, 1 + 1 / (2 * ratio)]
    np.testing.assert_allclose(weights, expected, rtol=1e-3)


@pytest.mark.parametrize("ratio", [1e2, 1e3, 2e3])
def test_fairgrad_of_two_tasks_of_very_different_length(ratio):
    # orthogonal, alpha = 2, gradients of mean squared length 1: w = k^(-2/3)
    squares = np.array([1.0, ratio**2])
    weights = jax.jit(FairGrad(alpha=2.0).of_gram)(jnp.diag(jnp.asarray(squares, "f4")))
    expected = (squares / squares.mean()) ** (-2 / 3)
    np.testing.assert_allclose(weights, expected, rtol=1e-3)


@pytest.mark.parametrize(
    "rule", [*RULES, FairGrad(alpha=0.5), FairGrad(alpha=5.0)], ids=repr
)
def test_finite_where_no_direction_helps_everybody(rule):
    # exact opposition, and five gradients that sum to zero
    axes = np.zeros((8, TASKS, 8))
    axes[:, :, 0] = [1.0, -1.0, 0.0, 0.0, 0.0]
    centred = EVERY_KIND["plain"] - EVERY_KIND["plain"].mean(axis=1, keepdims=True)
    grads = np.concatenate([axes, centred, EVERY_KIND["singular"] @ np.eye(3, 8)])
    weights = weights_of(rule, grads, "f4")
    assert np.isfinite(weights).all()
