"""The definition of spectral normalization agrees with NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common import layers
from impl_flax.layers import SpectralNorm
from tests.layers.numeric import assert_agrees, complex_step, normal


def numpy_power_iteration(matrix, u, v):
    u = matrix @ v
    u = u / np.sqrt(np.sum(u**2))
    v = matrix.T @ u
    return u, v / np.sqrt(np.sum(v**2))


def test_power_iteration_agrees_with_numpy():
    matrix, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    actual = layers.power_iteration(*map(jnp.array, (matrix, u, v)))
    for name, x, y in zip(
        "uv", actual, numpy_power_iteration(matrix, u, v), strict=True
    ):
        assert_agrees(x, y, what=name)


def test_power_iteration_of_a_zero_matrix_is_finite():
    u, v = layers.power_iteration(jnp.zeros((5, 3)), jnp.ones(5), jnp.ones(3))
    assert not u.any() and not v.any()


def test_settle_takes_fifteen_power_iterations():
    matrix, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    actual = layers.settle(*map(jnp.array, (matrix, u, v)))
    for _ in range(15):
        u, v = numpy_power_iteration(matrix, u, v)
    assert_agrees(actual[0], u, what="u")
    assert_agrees(actual[1], v, what="v")


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 2)], ids=["2d", "4d"])
def test_spectral_norm_converges_to_the_largest_singular_value(shape):
    # The largest singular value is ten times the next one, so that fifteen
    # iterations converge.
    left, _, right = np.linalg.svd(
        normal(shape[0], int(np.prod(shape[1:]))), full_matrices=False
    )
    sigma = 3 * 0.1 ** np.arange(len(right))
    weight = (left * sigma @ right).reshape(shape)
    u, v = normal(len(left), seed=1), normal(right.shape[1], seed=2)
    u, v = layers.settle(*map(jnp.array, (weight, u, v)))
    actual, new_u, new_v = layers.spectral_norm(
        jnp.array(weight), u, v, training=True
    )
    expected = np.linalg.svd(weight.reshape(shape[0], -1), compute_uv=False)
    assert_agrees(actual, weight / expected[0], what="weight")
    # Singular vectors are unique up to a common sign.
    sign = np.sign(np.asarray(new_u) @ left[:, 0])
    assert_agrees(new_u * sign, left[:, 0], what="u")
    assert_agrees(new_v * sign, right[0], what="v")


def test_spectral_norm_updates_its_estimates_only_in_training():
    weight, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    arrays = [jnp.array(x) for x in (weight, u, v)]

    frozen, same_u, same_v = layers.spectral_norm(*arrays, training=False)
    assert_agrees(frozen, weight / (u @ weight @ v), what="inference")
    assert np.array_equal(same_u, u) and np.array_equal(same_v, v)

    trained, new_u, new_v = layers.spectral_norm(*arrays, training=True)
    u, v = numpy_power_iteration(weight, u, v)
    assert_agrees(trained, weight / (u @ weight @ v), what="training")
    assert_agrees(new_u, u, what="u")
    assert_agrees(new_v, v, what="v")


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_gradient_flows_through_the_power_iteration(training):
    weight, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    projection = normal(5, 3, seed=3)
    old_u, old_v = jnp.array(u), jnp.array(v)
    if training:
        u, v = numpy_power_iteration(weight, u, v)

    def expected(weight):
        return np.sum(projection * weight / (u @ weight @ v))

    def actual(weight):
        y, *_ = layers.spectral_norm(weight, old_u, old_v, training=training)
        return jnp.sum(projection * y)

    assert_agrees(
        jax.grad(actual)(jnp.array(weight)),
        complex_step(expected, weight),
        quantity="gradients",
    )


def test_spectral_linear_applies_the_normalized_weight():
    x, weight, bias = normal(4, 3), normal(5, 3, seed=1), normal(5, seed=2)
    u, v = normal(5, seed=3), normal(3, seed=4)
    y, buffers = layers.spectral_linear(
        *map(jnp.array, (x, weight, bias, u, v)), training=True
    )
    u, v = numpy_power_iteration(weight, u, v)
    assert_agrees(y, x @ (weight / (u @ weight @ v)).T + bias)
    assert buffers.keys() == {"weight_u", "weight_v"}
    assert_agrees(buffers["weight_u"], u, what="weight_u")
    assert_agrees(buffers["weight_v"], v, what="weight_v")


def conv_transpose():
    return nnx.ConvTranspose(
        3, 2, (2, 3), transpose_kernel=True, rngs=nnx.Rngs(0)
    )


# The layers, and how the (out, in * kernel) matrix is made of their kernels.
WRAPPED = {
    "conv_transpose": (
        conv_transpose,
        lambda x: x[::-1, ::-1].transpose(2, 3, 0, 1).reshape(2, -1),
    ),
    "linear_general": (
        lambda: nnx.LinearGeneral((3,), (2, 2), rngs=nnx.Rngs(0)),
        lambda x: x.reshape(3, 4).T,
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_flax_spectral_norm_knows_the_axes_of_a_kernel(name):
    make, matrix = WRAPPED[name]
    layer = make()
    kernel = normal(*layer.kernel.shape)
    layer.kernel.set_value(jnp.array(kernel))
    wrapped = SpectralNorm(layer, n_steps=0, rngs=nnx.Rngs(0))
    # The exact singular vectors; with a wrong matrix their shapes differ, or
    # the norm does.
    left, sigma, right = np.linalg.svd(matrix(kernel), full_matrices=False)
    wrapped.u.set_value(jnp.array(left[:, 0]))
    wrapped.v.set_value(jnp.array(right[0]))
    x = jnp.array(normal(1, 4, 5, 3))
    bias = layer.bias[...]
    expected = (layer(x) - bias) / sigma[0] + bias
    assert_agrees(wrapped(x), expected)


def test_flax_spectral_norm_refuses_several_matrices(assert_raises):
    groups = nnx.LinearGeneral(3, 2, batch_axis={0: 2}, rngs=nnx.Rngs(0))
    einsum = nnx.Einsum("ab,bc->ac", (3, 2), rngs=nnx.Rngs(0))
    for layer in (groups, einsum):
        assert_raises(
            functools.partial(SpectralNorm, layer, rngs=nnx.Rngs(0)),
            ValueError,
            r"SpectralNorm layer: got \w+, expected one whose kernel is a "
            r"single matrix\. Wrap an .+\.",
        )
