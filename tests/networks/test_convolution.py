import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.convolution import convolve

PADDINGS = ("SAME", "VALID")
KEYS = jax.random.split(jax.random.key(0), 6)
X = jax.random.normal(KEYS[0], (2, 8, 7, 2))
KERNEL = 0.3 * jax.random.normal(KEYS[1], (5, 5, 2, 3))


def plain(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture(params=["cpu", "default"])
def branch(request, monkeypatch):
    """Runs on this machine what the CPU or any other platform would."""
    chosen = request.param
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, **forms: forms[chosen](*args)
    )


def close(got, want):
    # float32 sums of at most a few hundred products.
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)


# --- values ---------------------------------------------------------------------------


def loops(x, kernel, padding):
    """`y[p] = sum_t x[p + t] kernel[t]`, one product at a time, in float64."""
    side, edge = kernel.shape[0], kernel.shape[0] // 2
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    if padding == "SAME":
        x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = x[:, i : i + side, j : j + side]
            y[:, i, j] = np.einsum("nabc,abco->no", window, kernel)
    return y


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("side", [1, 3, 5])
def test_values_are_sums_over_windows(padding, side):
    kernel = KERNEL[:side, :side]
    expected = loops(X, kernel, padding)
    got = convolve(X, kernel, padding)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(plain(X, kernel, padding), expected, atol=1e-5)


@pytest.mark.parametrize("size", [5, 6])
def test_an_image_as_small_as_the_kernel(size):
    x = X[:, :size, :5]
    np.testing.assert_allclose(
        convolve(x, KERNEL, "VALID"), loops(x, KERNEL, "VALID"), atol=1e-5
    )


def test_an_image_smaller_than_the_kernel_leaves_nothing():
    assert convolve(X[:, :4], KERNEL, "VALID").shape == (2, 0, 3, 3)


# --- derivatives ----------------------------------------------------------------------


def nested(conv, order):
    """The derivative of that order of `sum sin(conv)` in both arguments at once.

    Each order but the last is taken along a random direction, so that what is compared
    has the shape of the arguments, and mixes x and the kernel.
    """
    scalar = lambda point: jnp.sin(conv(*point)).sum()
    for key in jax.random.split(KEYS[2], order - 1):
        directions = tuple(jax.random.normal(key, leaf.shape) for leaf in (X, KERNEL))

        def along(point, inner=scalar, directions=directions):
            slopes = jax.grad(inner)(point)
            return sum(jnp.vdot(a, b) for a, b in zip(slopes, directions, strict=True))

        scalar = along
    return jax.grad(scalar)


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives(padding, order):
    ours = nested(functools.partial(convolve, padding=padding), order)
    theirs = nested(functools.partial(plain, padding=padding), order)
    close(jax.jit(ours)((X, KERNEL)), jax.jit(theirs)((X, KERNEL)))


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("second", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("first", [jax.jacfwd, jax.jacrev])
def test_forward_and_reverse_in_any_order(padding, first, second):
    """Of a kernel of 2 x 2 numbers, as a Jacobian is one derivative a number."""
    base = jnp.ones((3, 3, 2, 3))

    def hessian(conv):
        kernel = lambda k: base * k.reshape(1, 1, 2, 2)[..., [0, 1, 1]]
        value = lambda k: jnp.sin(conv(X * k[0, 0], kernel(k), padding)).sum()
        return jax.jit(second(first(value)))(KERNEL[0, 0, :, :2])

    close(hessian(convolve), hessian(plain))


@pytest.mark.parametrize("padding", PADDINGS)
def test_first_derivative_by_differences(padding):
    weights = jax.random.normal(KEYS[3], convolve(X, KERNEL, padding).shape)
    loss = lambda x, kernel: jnp.vdot(weights, convolve(x, kernel, padding))
    slopes = jax.grad(loss, (0, 1))(X, KERNEL)
    # Linear in each argument, so a large step is exact but for rounding.
    for i, shape in enumerate((X.shape, KERNEL.shape)):
        step = jax.random.normal(KEYS[4], shape)
        moved = [X, KERNEL]
        moved[i] = moved[i] + step
        difference = loss(*moved) - loss(X, KERNEL)
        np.testing.assert_allclose(jnp.vdot(slopes[i], step), difference, rtol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("num_images", [0, 20, 21, 45, 200])
def test_kernel_gradients_over_many_images(padding, num_images):
    x = jax.random.normal(KEYS[5], (num_images, 6, 7, 2))
    rate = 0.1 / max(num_images, 1)  # a long step magnifies rounding

    def slope(conv):
        loss = lambda kernel: jnp.sin(conv(x, kernel, padding)).sum()
        moved = lambda kernel: loss(kernel - rate * jax.grad(loss)(kernel))
        return jax.jit(jax.grad(moved))(KERNEL)

    close(slope(convolve), slope(plain))


# --- transformations ------------------------------------------------------------------


def both(conv, x, kernel):
    """The value, and the gradients of a function that is not linear in it."""
    loss = lambda x, kernel: (conv(x, kernel) ** 2).sum()
    return conv(x, kernel), jax.grad(loss, (0, 1))(x, kernel)


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap(padding, axes):
    xs = jnp.stack([X, 2.0 * X[::-1], X - 1.0])
    kernels = jnp.stack([KERNEL, KERNEL[::-1], -KERNEL])
    x = X if axes[0] is None else xs
    kernel = KERNEL if axes[1] is None else kernels
    ours = functools.partial(both, functools.partial(convolve, padding=padding))
    theirs = functools.partial(both, functools.partial(plain, padding=padding))
    got = jax.jit(jax.vmap(ours, axes))(x, kernel)
    for i in range(3):
        one = theirs(
            X if axes[0] is None else xs[i], KERNEL if axes[1] is None else kernels[i]
        )
        close(jax.tree.map(lambda leaf, i=i: leaf[i], got), one)


def test_vmap_over_one_is_the_convolution_itself():
    """Patches are for several kernels; of one they would only be slower."""
    many = jax.jit(jax.vmap(functools.partial(convolve, padding="SAME")))
    text = lambda n: many.lower(X[None].repeat(n, 0), KERNEL[None].repeat(n, 0))
    assert "stablehlo.dot_general" not in text(1).as_text()
    assert "stablehlo.dot_general" in text(2).as_text()
    close(many(X[None], KERNEL[None])[0], convolve(X, KERNEL, "SAME"))


@pytest.mark.parametrize("padding", PADDINGS)
def test_second_derivatives_with_a_kernel_per_task(padding):
    # What ARM-LL does: the kernel takes a step that depends on it, for several sets.
    def moved(conv, x, kernel):
        slope = jax.grad(lambda kernel: (conv(x, kernel) ** 2).mean())(kernel)
        return jnp.sin(conv(x, kernel - 0.1 * slope)).sum()

    xs = jnp.stack([X, 2.0 * X[::-1]])
    total = lambda conv: jax.jit(
        jax.grad(lambda k: jax.vmap(lambda x: moved(conv, x, k))(xs).sum())
    )
    close(
        total(functools.partial(convolve, padding=padding))(KERNEL),
        total(functools.partial(plain, padding=padding))(KERNEL),
    )


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_lowers_for_every_platform(padding, order, platform):
    fn = functools.partial(convolve, padding=padding)
    one = lambda *point: nested(fn, order)(point) if order else fn(*point)
    traced = jax.jit(one).trace(X, KERNEL)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text
    if padding == "VALID" and not order:
        # On the CPU cropped from SAME, elsewhere the thing itself.
        assert ("stablehlo.slice" in text) == (platform == "cpu")


@pytest.mark.parametrize("padding", PADDINGS)
def test_shard_map_that_knows_what_varies(padding):
    """One kernel and images of each device, and the other way round."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    one, each = jax.P(), jax.P("d")
    xs = jnp.concatenate([X, X[::-1], 2.0 * X, X - 1.0])
    kernels = jnp.stack([KERNEL, -KERNEL, KERNEL[::-1], 2.0 * KERNEL])

    def loss(conv, kernel, x):
        kernel = kernel.reshape(KERNEL.shape)
        return jax.lax.psum((conv(x, kernel, padding) ** 2).sum(), "d")

    for specs, args in (((one, each), (KERNEL, xs)), ((each, one), (kernels, X))):
        found = [
            jax.jit(
                jax.grad(
                    jax.shard_map(
                        functools.partial(loss, conv),
                        mesh=mesh,
                        in_specs=specs,
                        out_specs=one,
                    ),
                    (0, 1),
                )
            )(*args)
            for conv in (convolve, plain)
        ]
        close(*found)


def test_gradients_of_bfloat16_are_added_up_in_float32():
    x = jax.random.normal(KEYS[5], (100, 6, 7, 2))
    slope = lambda conv, x, kernel: jax.grad(
        lambda k: (conv(x, k, "SAME") ** 2).sum().astype(jnp.float32)
    )(kernel)
    half = x.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)
    exact = slope(plain, *(a.astype(jnp.float32) for a in half))
    error = lambda conv: float(jnp.linalg.norm(slope(conv, *half) - exact))
    assert slope(convolve, *half).dtype == jnp.bfloat16
    assert error(convolve) <= 1.2 * error(plain)


def test_a_gradient_of_any_number_of_images_can_be_exported():
    loss = lambda k, x: (convolve(x, k, "VALID") ** 2).sum()
    shape = jax.export.symbolic_shape("b, 8, 7, 2")
    like = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (KERNEL.shape, shape))
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=["cpu"])(*like)
    close(exported.call(KERNEL, X), jax.grad(loss)(KERNEL, X))


# --- errors ---------------------------------------------------------------------------


@pytest.mark.usefixtures("untyped")
def test_a_padding_that_is_none():
    with pytest.raises(ValueError, match="SAME or VALID, got 'same'"):
        convolve(X, KERNEL, "same")


def test_an_image_of_too_few_pixels():
    with pytest.raises(ValueError, match=r"at least 4 pixels .*of 5, got \(3, 7\)"):
        convolve(X[:, :3], KERNEL, "VALID")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("shape", [(4, 4), (2, 2), (5, 3), (3, 5)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_kernels_that_are_refused(shape, padding):
    with pytest.raises(ValueError, match=r"square with an odd side, got \(\d, \d\)"):
        convolve(X, jnp.zeros((*shape, 2, 3)), padding)
