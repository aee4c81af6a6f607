"""The layer judge detects faults that are planted in a layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.agreement import layer_tolerance, relative_error
from common.comparison import layer_judge as judge
from common.layers.table import BatchNorm, LayerNorm, Linear


@pytest.fixture(params=judge.DTYPES)
def dtype(request) -> str:
    return request.param


@pytest.fixture
def plant(monkeypatch):
    """Measures a row with a wrapped definition as the library's layer."""

    def plant(layer, dtype, forward, measure=judge.measure):
        class Counterpart:
            def __init__(self, backend, layer):
                self.definition = layer.forward

            def forward(self, *args, **kwargs):
                return forward(self.definition, *args, **kwargs)

        monkeypatch.setattr(judge, "find_counterpart", Counterpart)
        judge.compiled.cache_clear()
        arguments = () if measure is judge.curvature else (dtype,)
        findings = measure(layer, "planted", *arguments)
        judge.compiled.cache_clear()
        return {
            (finding.quantity, finding.mode, finding.array)
            for finding in findings
            if not finding.ok
        }

    return plant


LINEAR = Linear()
NORM = BatchNorm()


def unchanged(definition, *args, **kwargs):
    return definition(*args, **kwargs)


def test_the_definition_agrees_with_itself(plant, dtype):
    assert plant(LINEAR, dtype, unchanged) == set()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_definition_of_batch_norm_agrees_with_itself(plant, dtype):
    assert plant(NORM, dtype, unchanged) == set()


def test_statistics_in_bfloat16_are_detected(plant):
    def rounded(definition, *args, **kwargs):
        y, buffers = definition(*args, **kwargs)
        narrow = {k: x.astype("bfloat16") for k, x in buffers.items()}
        return y, {k: x.astype(buffers[k].dtype) for k, x in narrow.items()}

    found = plant(NORM, "bfloat16", rounded)
    assert ("buffers", "train", "running_var") in found


def test_a_wrong_output_is_detected(plant, dtype):
    def scaled(definition, *args, **kwargs):
        y, buffers = definition(*args, **kwargs)
        return y * 1.5, buffers

    found = plant(LINEAR, dtype, scaled)
    assert ("output", "train", "") in found
    assert ("output", "eval", "") in found
    assert ("gradients", "train", "weight") in found


def test_a_variance_of_squares_is_detected_at_a_large_mean():
    """E[x^2] - E[x]^2 exceeds the tolerance, however large the mean is."""
    layer = LayerNorm(use_weight=False, use_bias=False)
    for mean in (1e2, 1e3, 1e4):
        (x,) = judge.draw(layer, 3, 0, mean).calls[0].inputs
        x = x.astype("float32")
        expected, _ = layer.forward({}, {}, x * 1.0, key=None, training=True)
        var = np.mean(x * x, -1) - np.mean(x, -1) ** 2
        wrong = x - np.mean(x, -1, keepdims=True)
        wrong /= np.sqrt(np.maximum(var, 0) + layer.eps)[:, None]
        bound = layer_tolerance("float32", "layer", x.size, layer.offset(x))
        assert relative_error(wrong, np.asarray(expected)) > bound


def test_a_wrong_epsilon_is_detected_in_float64(plant):
    """An epsilon ten times too small changes outputs and gradients."""

    def wrong_eps(definition, *args, **kwargs):
        del definition
        wrong = dataclasses.replace(NORM, eps=NORM.eps / 10)
        return wrong.forward(*args, **kwargs)

    found = plant(NORM, "float64", wrong_eps)
    assert {quantity for quantity, _, _ in found} == {"output", "gradients"}


def test_a_missing_gradient_is_detected(plant, dtype):
    """The output is correct, and so are all gradients but one."""

    def stopped(definition, params, *args, **kwargs):
        bias = jax.lax.stop_gradient(params["bias"])
        return definition(params | {"bias": bias}, *args, **kwargs)

    found = plant(LINEAR, dtype, stopped)
    assert found == {
        ("gradients", "train", "bias"),
        ("gradients", "eval", "bias"),
    }


def test_buffers_that_are_not_updated_are_detected(plant, dtype):
    def without_update(definition, params, buffers, x, **kwargs):
        y, _ = definition(params, buffers, x, **kwargs)
        return y, buffers

    found = plant(NORM, dtype, without_update)
    assert ("buffers", "train", "running_mean") in found
    assert ("buffers", "train", "running_var") in found
    assert not any(key[:2] == ("output", "train") for key in found)


def test_inference_that_changes_a_buffer_is_detected(plant):
    """A change of one bit is detected, though it is within the tolerance."""

    def changing_inference(definition, *args, training, **kwargs):
        y, buffers = definition(*args, training=training, **kwargs)
        if not training:
            mean = buffers["running_mean"]
            buffers = buffers | {"running_mean": mean * (1 + 2**-52)}
        return y, buffers

    found = plant(NORM, "float64", changing_inference)
    assert found == {("buffers", "eval", "running_mean")}


def test_a_wrong_dtype_is_detected(plant):
    def promoted(definition, *args, **kwargs):
        y, buffers = definition(*args, **kwargs)
        return y.astype(jnp.float32), buffers

    found = plant(LINEAR, "bfloat16", promoted)
    assert found == {("output", "train", ""), ("output", "eval", "")}


def test_nan_is_detected(plant, dtype):
    def broken(definition, *args, training, **kwargs):
        y, buffers = definition(*args, training=training, **kwargs)
        return y.at[0].set(jnp.nan) if not training else y, buffers

    assert ("output", "eval", "") in plant(LINEAR, dtype, broken)


def test_a_wrong_structure_raises(plant):
    def paired(definition, *args, **kwargs):
        y, buffers = definition(*args, **kwargs)
        return y, buffers | {"steps": jnp.int32(1)}

    with pytest.raises(ValueError, match="linear: got results of the struct"):
        plant(LINEAR, "float64", paired)


def test_a_wrong_second_derivative_is_detected(plant):
    """The output and the first derivative are correct."""

    @jax.custom_jvp
    def square(x):
        return x * x

    @square.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return x * x, 2 * jax.lax.stop_gradient(x) * t

    def flat(definition, params, buffers, x, **kwargs):
        y, buffers = definition(params, buffers, x, **kwargs)
        return y + square(x) - x * x, buffers

    assert plant(NORM, "float64", flat) == set()
    found = plant(NORM, "float64", flat, judge.curvature)
    assert found == {("curvature", "train", "input 0")}
