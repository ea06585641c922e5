import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.translation import (
    TranslationSource,
    locally_connected,
    true_weight_matrix,
)

KEY = jax.random.key(7)
SMALL = TranslationSource(rank=2, num_support=2, num_query=3, input_size=9)


def test_default_shapes_are_those_of_the_paper():
    task = TranslationSource().example
    assert task.support.inputs.shape == (1, 70)
    assert task.support.targets.shape == (1, 68)
    assert task.query.inputs.shape == (19, 70)
    assert task.query.targets.shape == (19, 68)


def test_arrays_are_float32_and_the_task_id_is_an_int32_zero():
    task = SMALL.sample_task(SMALL.load(), KEY, jnp.array(0), split="train")
    for examples in (task.support, task.query):
        assert examples.inputs.dtype == examples.targets.dtype == jnp.float32
    assert task.task_id.shape == ()
    assert task.task_id.dtype == jnp.int32
    assert int(task.task_id) == 0


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_targets_are_the_loop_over_positions_and_taps(rank):
    source = TranslationSource(rank=rank, num_support=2, num_query=3, input_size=9)
    data = source.load()
    task = source.sample_task(data, KEY, jnp.array(0), split="test")
    filters = np.asarray(source.filters(data, KEY, split="test"))
    for examples in (task.support, task.query):
        inputs = np.asarray(examples.inputs)
        expected = np.zeros(examples.targets.shape)
        for n in range(len(inputs)):
            for p in range(7):
                for j in range(3):
                    expected[n, p] += filters[p, j] * inputs[n, p + j]
        # float32 sums of three terms of order 1
        np.testing.assert_allclose(examples.targets, expected, atol=1e-5)


def test_filters_are_shared_at_rank_1_and_mixed_above():
    plain = TranslationSource(rank=1, input_size=9)
    filters = plain.filters(plain.load(), KEY, split="train")
    np.testing.assert_array_equal(filters, jnp.broadcast_to(filters[:1], (7, 3)))
    mixed = np.asarray(SMALL.filters(SMALL.load(), KEY, split="train"))
    assert np.linalg.matrix_rank(mixed, tol=1e-4) == 2
    assert np.ptp(mixed, axis=0).min() > 0.01


def test_support_and_query_share_no_input():
    task = SMALL.sample_task(SMALL.load(), KEY, jnp.array(0), split="train")
    shared = task.support.inputs[:, None, :] == task.query.inputs[None, :, :]
    assert not bool(shared.any())


def test_mixing_matrix_is_a_softmax_drawn_from_the_seed():
    mixing = np.asarray(TranslationSource(rank=5, seed=3).load())
    assert mixing.shape == (68, 5)
    np.testing.assert_allclose(mixing.sum(axis=1), 1.0, rtol=1e-6)  # float32
    # log C is N(0, 1) up to a constant per row: of 68 rows x 4 free entries the
    # standard deviation is known to 1 / sqrt(2 * 272) = 4 %; five times that
    logits = np.log(mixing)
    spread = np.sqrt(logits.var(axis=1, ddof=1).mean())
    assert spread == pytest.approx(1.0, abs=0.22)
    np.testing.assert_array_equal(mixing, TranslationSource(rank=5, seed=3).load())
    assert np.abs(mixing - TranslationSource(rank=5, seed=4).load()).max() > 0.1


def test_mixing_matrix_is_a_column_of_ones_at_rank_1():
    np.testing.assert_array_equal(TranslationSource().load(), np.ones((68, 1)))


def test_mixing_matrix_is_computed_once_even_if_first_asked_for_inside_jit():
    source = TranslationSource(rank=2, input_size=9)
    jax.jit(lambda: 2 * source.load())()
    assert np.isfinite(np.asarray(source.load())).all()  # a tracer would raise
    assert source.load() is source.load()


def test_a_slot_draws_the_same_task_whatever_is_drawn_beside_it():
    draw = jax.jit(lambda slots: SMALL.sample(KEY, slots, split="train"))
    everything, some = draw(jnp.array([0, 1, 3])), draw(jnp.array([3, 1, 8]))
    for a, b in zip(jax.tree.leaves(everything), jax.tree.leaves(some), strict=True):
        np.testing.assert_array_equal(a[2], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_splits_are_different_streams():
    first = {
        split: float(
            SMALL.sample_task(
                SMALL.load(), KEY, jnp.array(0), split=split
            ).query.inputs[0, 0]
        )
        for split in ("train", "validation", "test")
    }
    assert len(set(first.values())) == 3


def test_an_unknown_split_is_named(untyped):
    with pytest.raises(ValueError, match="got 'dev'"):
        SMALL.sample(KEY, jnp.arange(1), split="dev")  # pyright: ignore[reportArgumentType]


def test_zero_error_is_the_mean_square_of_the_targets():
    source = TranslationSource(rank=2, num_support=1, num_query=1, seed=5)
    draw = jax.jit(lambda slots: source.sample(KEY, slots, split="train"))
    tasks = draw(jnp.arange(4000))
    per_task = np.square(np.asarray(tasks.query.targets)).mean(axis=(1, 2))
    # five standard errors of the mean over the tasks, about 4 % of the value
    tolerance = 5 * per_task.std() / np.sqrt(len(per_task))
    assert tolerance < 0.15
    assert source.zero_error == pytest.approx(per_task.mean(), abs=tolerance)


def test_zero_error_without_mixing_counts_the_taps():
    assert TranslationSource(kernel_size=4).zero_error == 4.0


def test_true_weight_matrix_acts_like_the_layer():
    filters = SMALL.filters(SMALL.load(), KEY, split="train")
    inputs = jax.random.normal(KEY, (4, 9))
    dense = np.asarray(inputs, np.float64) @ np.asarray(true_weight_matrix(filters)).T
    # float32 sums of three terms of order 1
    np.testing.assert_allclose(locally_connected(inputs, filters), dense, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, got 0"),
        ({"num_support": 0}, "num_support must be >= 1, got 0"),
        ({"num_query": -2}, "num_query must be >= 1, got -2"),
        ({"kernel_size": 0}, "kernel_size must be >= 1, got 0"),
        ({"input_size": 2}, "input_size must be >= kernel_size = 3, got 2"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TranslationSource(**settings)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="last size 7"):
        locally_connected(jnp.zeros((1, 8)), jnp.zeros((5, 3)))
