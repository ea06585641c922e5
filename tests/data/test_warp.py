import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxmeta.data.warp import rotation, warp

IMAGE = jax.random.uniform(jax.random.key(0), (9, 7, 2))


def test_the_identity_is_exact():
    np.testing.assert_array_equal(warp(IMAGE, jnp.eye(2)), IMAGE)


@pytest.mark.parametrize("border", ["constant", "nearest"])
def test_agrees_with_scipy(border):
    matrix, shift = np.array([[0.9, 0.3], [-0.2, 1.1]]), np.array([0.7, -1.3])
    centre = (np.array(IMAGE.shape[:2]) - 1) / 2
    got = warp(IMAGE, jnp.asarray(matrix), jnp.asarray(shift), border=border)
    for channel in range(2):
        expected = ndimage.affine_transform(
            np.asarray(IMAGE[..., channel]),
            matrix,
            offset=centre - matrix @ centre + shift,
            order=1,
            mode="grid-constant" if border == "constant" else border,
        )
        np.testing.assert_allclose(got[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize("side", [8, 28, 84])
def test_a_quarter_turn_is_that_of_numpy_and_four_are_none(side):
    image = np.random.default_rng(side).random((side, side, 1), np.float32)
    quarter = jax.jit(lambda image: warp(image, rotation(jnp.pi / 2)))
    np.testing.assert_allclose(quarter(image), np.rot90(image), atol=1e-4)
    turned = image
    for _ in range(4):
        turned = quarter(turned)
    np.testing.assert_allclose(turned, image, atol=1e-4)
