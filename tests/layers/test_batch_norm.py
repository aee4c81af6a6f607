"""The dialects of batch normalization agree with NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from common import layers
from tests.layers.numeric import assert_agrees, complex_step, normal

MOMENTUM = 0.9


EPS = 1e-3  # large, so that the place where it is added matters


SHAPES = {"vectors": (5, 3), "images": (2, 3, 4, 3)}


shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


dialects = pytest.mark.parametrize("dialect", layers.BATCH_NORM_DIALECTS)


class NumpyBatchNorm:
    """Batch normalization in NumPy; the buffers are attributes."""

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
    """Returns the initial buffers of a dialect, in float64."""
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
        assert_agrees(actual[name], buffer, what=name)


@shapes
@dialects
def test_four_training_steps_and_inference_agree_with_numpy(dialect, shape):
    weight, bias = normal(3, seed=1), normal(3, seed=2)
    expected = NumpyBatchNorm(dialect, 3)
    buffers = initial_buffers(dialect)
    for step in range(4):
        x = normal(*shape, seed=step) * (step + 1) + 5 * step
        y, buffers = batch_norm(
            jnp.array(x), jnp.array(weight), jnp.array(bias), buffers,
            dialect=dialect, training=True,
        )  # fmt: skip
        assert_agrees(y, expected.train(x, weight, bias), what=f"step {step}")
        check_buffers(buffers, expected.buffers())
    x = normal(*shape, seed=99)
    y, after = batch_norm(
        jnp.array(x), jnp.array(weight), jnp.array(bias), buffers,
        dialect=dialect, training=False,
    )  # fmt: skip
    assert_agrees(y, expected.evaluate(x, weight, bias), what="inference")
    for name, buffer in buffers.items():
        assert np.array_equal(after[name], buffer), name


@dialects
def test_inference_before_training_agrees_with_numpy(dialect):
    x, weight, bias = normal(5, 3), normal(3, seed=1), normal(3, seed=2)
    y, _ = batch_norm(
        jnp.array(x), jnp.array(weight), jnp.array(bias),
        initial_buffers(dialect), dialect=dialect, training=False,
    )  # fmt: skip
    expected = NumpyBatchNorm(dialect, 3)
    assert_agrees(y, expected.evaluate(x, weight, bias))


@pytest.mark.parametrize("wrt", ["x", "weight", "bias"])
@pytest.mark.parametrize("steps_before", [0, 2])
@dialects
def test_gradients_agree_with_numpy(dialect, steps_before, wrt):
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

    assert_agrees(
        jax.grad(actual)(jnp.array(values[wrt])),
        complex_step(expected, values[wrt]),
        quantity="gradients",
        what=wrt,
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@dialects
def test_outputs_and_buffers_keep_their_dtypes(dialect, training, dtype):
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
