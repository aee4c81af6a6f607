"""The reference functions, against NumPy in float64.

The NumPy functions here are written from the definitions, with loops. They
are analytic, so they run on complex numbers too: the imaginary part of
`f(x + ih) / h` is the derivative to round-off, with no step size to choose.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from common import layers
from common.agreement import assert_close

MOMENTUM = 0.9
EPS = 1e-3  # large, so that a test sees where it is added
SHAPES = {"vectors": (5, 3), "images": (2, 3, 4, 3)}

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
dialects = pytest.mark.parametrize("dialect", layers.BATCH_NORM_DIALECTS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def check(actual, expected, *, quantity="forward", what=""):
    assert_close(
        actual, expected, dtype="float64", quantity=quantity, what=what
    )


def complex_step(function, x):
    """Differentiates a scalar function of an array."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        z = x.astype(np.complex128)
        z[index] += 1e-30j
        gradient[index] = function(z).imag / 1e-30
    return gradient


# --- linear, convolution ----------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_linear(batch, bias):
    x, weight, b = normal(*batch, 3), normal(5, 3, seed=1), normal(5, seed=2)
    expected = np.zeros((*batch, 5))
    for index in np.ndindex(*batch, 5):
        *i, o = index
        expected[index] = sum(x[(*i, k)] * weight[o, k] for k in range(3))
        expected[index] += b[o] if bias else 0
    actual = layers.linear(
        jnp.array(x), jnp.array(weight), jnp.array(b) if bias else None
    )
    check(actual, expected)


def numpy_conv(x, weight, bias, padding):
    p = padding
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    out, _, kh, kw = weight.shape
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    y = np.zeros((len(x), height, width, out))
    for b, i, j, o in np.ndindex(y.shape):
        window = x[b, i : i + kh, j : j + kw]  # (kh, kw, in)
        kernel = weight[o].transpose(1, 2, 0)
        y[b, i, j, o] = np.sum(window * kernel) + bias[o]
    return y


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 2)], ids=str)
def test_conv(kernel, padding):
    x, weight = normal(2, 5, 4, 3), normal(6, 3, *kernel, seed=1)
    bias = normal(6, seed=2)
    actual = layers.conv(
        jnp.array(x), jnp.array(weight), jnp.array(bias), padding=padding
    )
    check(actual, numpy_conv(x, weight, bias, padding))


def test_conv_without_bias_adds_nothing():
    x, weight = normal(2, 5, 4, 3), normal(6, 3, 2, 2, seed=1)
    actual = layers.conv(jnp.array(x), jnp.array(weight))
    check(actual, numpy_conv(x, weight, np.zeros(6), 0))


# --- activation and pooling -------------------------------------------------


def test_relu_is_the_positive_part():
    x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0])
    check(layers.relu(jnp.array(x)), np.array([0, 0, 0, 1e-300, 3.0]))


def test_nan_and_infinity_pass_through():
    """A fault upstream stays visible."""
    x = jnp.array([-np.inf, np.nan, np.inf])
    check(layers.relu(x), np.array([0, np.nan, np.inf]))
    pooled = layers.max_pool(x[:2].reshape(1, 2, 1), (2,))
    assert np.isnan(pooled).all()


def test_relu_has_gradient_0_at_0():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    gradient = jax.grad(lambda x: jnp.sum(layers.relu(x)))(x)
    assert gradient.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=["fits", "leftover"])
def test_max_pool(size):
    x = normal(2, *size, 3)
    expected = np.zeros((2, 2, 3, 3))
    for b, i, j, c in np.ndindex(expected.shape):
        square = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        expected[b, i, j, c] = square.max()
    actual = layers.max_pool(jnp.array(x), (2, 2), stride=2)
    assert np.array_equal(actual, expected)


def test_max_pool_passes_the_gradient_to_the_maximum():
    x = jnp.array(normal(1, 4, 4, 1))

    def pool(x):
        return layers.max_pool(x, (2, 2), stride=2)

    gradient = jax.grad(lambda x: jnp.sum(pool(x)))(x)
    maxima = np.isin(x, pool(x))
    assert np.array_equal(gradient, maxima)


def test_flatten_has_the_channel_outermost():
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) * 1.0
    y = layers.flatten(jnp.array(x))
    assert y.shape == (2, 60)
    for b, h, w, c in np.ndindex(x.shape):
        assert y[b, (c * 3 + h) * 4 + w] == x[b, h, w, c]


# --- dropout ----------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_zeroes_a_share_and_scales_the_rest(p):
    x = normal(100, 50) + 10  # nowhere 0
    y = np.asarray(layers.dropout(jnp.array(x), jr.key(0), p))
    kept = y != 0
    check(y, np.where(kept, x / (1 - p), 0))
    # Six standard deviations of a share of 5,000.
    assert abs(kept.mean() - (1 - p)) < 6 * np.sqrt(p * (1 - p) / x.size)


def test_dropout_keeps_all_at_0():
    x = normal(4, 5)
    assert np.array_equal(layers.dropout(jnp.array(x), jr.key(0), 0.0), x)


def test_dropout_draws_anew_for_each_example_and_key():
    x = jnp.ones((2, 100))
    first = layers.dropout(x, jr.key(0), 0.5)
    assert np.array_equal(first, layers.dropout(x, jr.key(0), 0.5))
    assert not np.array_equal(first, layers.dropout(x, jr.key(1), 0.5))
    assert not np.array_equal(first[0], first[1])


# --- batch normalization ----------------------------------------------------


class NumpyBatchNorm:
    """The dialects, with attributes for buffers."""

    def __init__(self, dialect, features):
        self.dialect = dialect
        self.mean = np.zeros(features)
        self.var = (
            np.zeros(features) if dialect == "ema" else np.ones(features)
        )
        self.calls = 0

    def train(self, x, weight, bias):
        examples = x.reshape(-1, x.shape[-1])
        mean = np.sum(examples, 0) / len(examples)
        var = np.sum((examples - mean) ** 2, 0) / len(examples)
        batch = mean, var
        if self.dialect == "torch":
            var = var * len(examples) / (len(examples) - 1)
        self.calls += 1
        if self.dialect == "ema" and self.calls == 1:
            self.mean, self.var = mean, var
        else:
            self.mean = MOMENTUM * self.mean + (1 - MOMENTUM) * mean
            self.var = MOMENTUM * self.var + (1 - MOMENTUM) * var
        if self.dialect == "ema":
            batch = self.mean, self.var
        return self.normalize(x, *batch, weight, bias)

    def evaluate(self, x, weight, bias):
        mean, var = self.mean, self.var
        if self.dialect == "batch" and self.calls:
            debias = 1 - MOMENTUM**self.calls
            mean, var = mean / debias, var / debias
        return self.normalize(x, mean, var, weight, bias)

    def normalize(self, x, mean, var, weight, bias):
        return (x - mean) / np.sqrt(var + EPS) * weight + bias

    def buffers(self):
        buffers: dict[str, np.ndarray] = {
            "running_mean": self.mean,
            "running_var": self.var,
        }
        if self.dialect == "ema":
            buffers["first_time"] = np.array(self.calls == 0)
        if self.dialect == "batch":
            buffers["num_batches_tracked"] = np.array(self.calls, np.int32)
        return buffers


def initial_buffers(dialect, features=3):
    """The initial values that a spec declares, in float64."""
    variables = layers.batch_norm_variables(features, dialect)
    values = {
        name: variable.init(jr.key(0), variable.shape)
        for name, variable in variables.items()
        if not variable.trainable
    }
    return {
        name: x.astype("float64") if x.dtype == jnp.float32 else x
        for name, x in values.items()
    }


def batch_norm(x, weight, bias, buffers, *, dialect, training):
    return layers.batch_norm(
        x,
        weight,
        bias,
        **buffers,
        dialect=dialect,
        momentum=MOMENTUM,
        eps=EPS,
        training=training,
    )


def check_buffers(actual, expected):
    assert actual.keys() == expected.keys()
    for name, buffer in expected.items():
        check(actual[name], buffer, what=name)


@shapes
@dialects
def test_batch_norm_over_some_steps(dialect, shape):
    weight, bias = normal(3, seed=1), normal(3, seed=2)
    expected = NumpyBatchNorm(dialect, 3)
    buffers = initial_buffers(dialect)
    for step in range(4):
        x = normal(*shape, seed=step) * (step + 1) + 5 * step
        y, buffers = batch_norm(
            jnp.array(x), jnp.array(weight), jnp.array(bias), buffers,
            dialect=dialect, training=True,
        )  # fmt: skip
        check(y, expected.train(x, weight, bias), what=f"step {step}")
        check_buffers(buffers, expected.buffers())
    x = normal(*shape, seed=99)
    y, after = batch_norm(
        jnp.array(x), jnp.array(weight), jnp.array(bias), buffers,
        dialect=dialect, training=False,
    )  # fmt: skip
    check(y, expected.evaluate(x, weight, bias), what="inference")
    for name, buffer in buffers.items():
        assert np.array_equal(after[name], buffer), name


@dialects
def test_batch_norm_before_any_step(dialect):
    x, weight, bias = normal(5, 3), normal(3, seed=1), normal(3, seed=2)
    y, _ = batch_norm(
        jnp.array(x), jnp.array(weight), jnp.array(bias),
        initial_buffers(dialect), dialect=dialect, training=False,
    )  # fmt: skip
    expected = NumpyBatchNorm(dialect, 3)
    check(y, expected.evaluate(x, weight, bias))


@pytest.mark.parametrize("wrt", ["x", "weight", "bias"])
@pytest.mark.parametrize("steps_before", [0, 2])
@dialects
def test_batch_norm_gradient(dialect, steps_before, wrt):
    values = {
        "x": normal(5, 3),
        "weight": normal(3, seed=1),
        "bias": normal(3, seed=2),
    }
    projection = normal(5, 3, seed=3)
    buffers = initial_buffers(dialect)
    for step in range(steps_before):
        _, buffers = batch_norm(
            jnp.array(normal(5, 3, seed=10 + step)), jnp.ones(3),
            jnp.zeros(3), buffers, dialect=dialect, training=True,
        )  # fmt: skip

    def expected(value):
        norm = NumpyBatchNorm(dialect, 3)
        for step in range(steps_before):
            norm.train(normal(5, 3, seed=10 + step), 1, 0)
        return np.sum(projection * norm.train(**{**values, wrt: value}))

    def actual(value):
        arrays = {name: jnp.array(x) for name, x in values.items()}
        y, _ = batch_norm(
            **{**arrays, wrt: value},
            buffers=buffers,
            dialect=dialect,
            training=True,
        )
        return jnp.sum(projection * y)

    check(
        jax.grad(actual)(jnp.array(values[wrt])),
        complex_step(expected, values[wrt]),
        quantity="gradients",
        what=wrt,
    )


# --- spectral normalization -------------------------------------------------


def numpy_power_iteration(matrix, u, v):
    u = matrix @ v
    u = u / np.sqrt(np.sum(u**2))
    v = matrix.T @ u
    return u, v / np.sqrt(np.sum(v**2))


def test_power_iteration_takes_one_step():
    matrix, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    actual = layers.power_iteration(*map(jnp.array, (matrix, u, v)))
    for name, x, y in zip(
        "uv", actual, numpy_power_iteration(matrix, u, v), strict=True
    ):
        check(x, y, what=name)


def test_power_iteration_of_a_zero_matrix_is_finite():
    u, v = layers.power_iteration(jnp.zeros((5, 3)), jnp.ones(5), jnp.ones(3))
    assert not u.any() and not v.any()


def test_settle_iterates_as_often_as_equinox_does():
    matrix, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    actual = layers.settle(*map(jnp.array, (matrix, u, v)))
    for _ in range(15):
        u, v = numpy_power_iteration(matrix, u, v)
    check(actual[0], u, what="u")
    check(actual[1], v, what="v")


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 2)], ids=["2d", "4d"])
def test_spectral_norm_converges_to_the_largest_singular_value(shape):
    # With a wide gap below the largest one, fifteen iterations do.
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
    check(actual, weight / expected[0], what="weight")
    # Singular vectors are unique up to a common sign.
    sign = np.sign(np.asarray(new_u) @ left[:, 0])
    check(new_u * sign, left[:, 0], what="u")
    check(new_v * sign, right[0], what="v")


def test_spectral_norm_iterates_in_training_only():
    weight, u, v = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    arrays = [jnp.array(x) for x in (weight, u, v)]

    frozen, same_u, same_v = layers.spectral_norm(*arrays, training=False)
    check(frozen, weight / (u @ weight @ v), what="inference")
    assert np.array_equal(same_u, u) and np.array_equal(same_v, v)

    trained, new_u, new_v = layers.spectral_norm(*arrays, training=True)
    u, v = numpy_power_iteration(weight, u, v)
    check(trained, weight / (u @ weight @ v), what="training")
    check(new_u, u, what="u")
    check(new_v, v, what="v")


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_spectral_norm_gradient_does_not_enter_the_iteration(training):
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

    check(
        jax.grad(actual)(jnp.array(weight)),
        complex_step(expected, weight),
        quantity="gradients",
    )


def test_spectral_linear_is_a_linear_with_a_normalized_weight():
    x, weight, bias = normal(4, 3), normal(5, 3, seed=1), normal(5, seed=2)
    u, v = normal(5, seed=3), normal(3, seed=4)
    y, buffers = layers.spectral_linear(
        *map(jnp.array, (x, weight, bias, u, v)), training=True
    )
    u, v = numpy_power_iteration(weight, u, v)
    check(y, x @ (weight / (u @ weight @ v)).T + bias)
    check_buffers(buffers, {"weight_u": u, "weight_v": v})


# --- dtypes, names ----------------------------------------------------------

CALLS = {
    "linear": (layers.linear, ((4, 3), (5, 3), (5,)), {}),
    "conv": (layers.conv, ((2, 4, 4, 3), (5, 3, 3, 3), (5,)), {}),
    "relu": (layers.relu, ((4, 3),), {}),
    "max_pool": (layers.max_pool, ((2, 4, 4, 3),), {"window": (2, 2)}),
    "flatten": (layers.flatten, ((2, 4, 4, 3),), {}),
    "dropout": (layers.dropout, ((4, 3),), {"key": jr.key(0), "p": 0.5}),
    "spectral_linear": (
        layers.spectral_linear,
        ((4, 3), (5, 3), (5,), (5,), (3,)),
        {"training": True},
    ),
}


@pytest.mark.parametrize("layer", CALLS)
def test_dtype_is_kept(layer, dtype):
    function, shapes, options = CALLS[layer]
    arrays = [jnp.ones(shape, dtype) for shape in shapes]
    found = jax.eval_shape(lambda *xs: function(*xs, **options), *arrays)
    assert {x.dtype.name for x in jax.tree.leaves(found)} == {dtype}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@dialects
def test_batch_norm_keeps_every_dtype(dialect, training, dtype):
    buffers = {
        name: x.astype(dtype) if x.dtype == "float64" else x
        for name, x in initial_buffers(dialect).items()
    }
    y, updated = jax.eval_shape(
        lambda *args: batch_norm(*args, dialect=dialect, training=training),
        jnp.ones((4, 3), dtype),
        jnp.ones(3, dtype),
        jnp.ones(3, dtype),
        buffers,
    )
    assert y.dtype == dtype
    for name, x in buffers.items():
        assert updated[name].dtype == x.dtype, name


def test_a_layer_sees_its_own_arrays_only():
    params = {"norm.weight": jnp.ones(3), "norm1.weight": jnp.zeros(3)}
    buffers = {"norm.count": jnp.zeros(())}

    def layer(x, weight, count, *, scale):
        return x * weight * scale, {"count": count + 1}

    y, new = layers.stateful(
        layer, "norm", jnp.ones(3), params, buffers, scale=2.0
    )
    assert y.tolist() == [2, 2, 2]
    assert new.keys() == {"norm.count"}
    assert new["norm.count"] == 1
