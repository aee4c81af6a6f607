"""The judge of the layer matrix sees what it should: planted faults."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from common.comparison import layer_judge as judge
from common.layers.table import BatchNorm, Linear
from common.registry import find_counterpart

pytestmark = pytest.mark.usefixtures("forgets")


@pytest.fixture(params=judge.DTYPES)
def dtype(request) -> str:
    return request.param


@pytest.fixture
def plant(monkeypatch):
    """Judges a row whose counterpart's forward is another function."""

    def plant(layer, dtype, forward, measure=judge.measure):
        class Counterpart:
            def __init__(self, forward):
                self.forward = forward

        def find(backend, layer):
            counterpart = find_counterpart("reference", layer)
            if backend == "reference":
                return counterpart
            return Counterpart(
                lambda *args, **kwargs: forward(
                    counterpart.forward, *args, **kwargs
                )
            )

        monkeypatch.setattr(judge, "find_counterpart", find)
        judge.compiled.cache_clear()
        arguments = () if measure is judge.curvature else (dtype,)
        findings = measure(layer, "planted", *arguments)
        judge.compiled.cache_clear()
        return {
            (it.quantity, it.mode, it.what) for it in findings if not it.ok
        }

    return plant


LINEAR = Linear()
NORM = BatchNorm()


def same(forward, *args, **kwargs):
    return forward(*args, **kwargs)


def test_the_definition_itself_agrees(plant, dtype):
    assert plant(LINEAR, dtype, same) == set()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_definition_of_a_norm_agrees(plant, dtype):
    """In bfloat16 it does not: it takes its statistics in that, too."""
    assert plant(NORM, dtype, same) == set()


def test_statistics_in_bfloat16_are_seen(plant):
    found = plant(NORM, "bfloat16", same)
    assert ("buffers", "train", "running_var") in found


def test_wrong_output(plant, dtype):
    def scaled(forward, *args, **kwargs):
        y, buffers = forward(*args, **kwargs)
        return y * 1.5, buffers

    found = plant(LINEAR, dtype, scaled)
    assert ("output", "train", "") in found
    assert ("output", "eval", "") in found
    assert ("gradients", "train", "weight") in found


def test_wrong_eps_in_float64(plant):
    """The classic: ten times the eps, seen in every quantity."""

    def careless(forward, *args, **kwargs):
        del forward
        wrong = dataclasses.replace(NORM, eps=NORM.eps / 10)
        return wrong.forward(*args, **kwargs)

    found = plant(NORM, "float64", careless)
    assert {quantity for quantity, _, _ in found} == {"output", "gradients"}


def test_missing_gradient(plant, dtype):
    """The output is right, and only one gradient is not."""

    def stopped(forward, params, *args, **kwargs):
        bias = jax.lax.stop_gradient(params["bias"])
        return forward(params | {"bias": bias}, *args, **kwargs)

    found = plant(LINEAR, dtype, stopped)
    assert found == {
        ("gradients", "train", "bias"),
        ("gradients", "eval", "bias"),
    }


def test_buffers_that_are_not_updated(plant, dtype):
    def forgetful(forward, params, buffers, x, **kwargs):
        y, _ = forward(params, buffers, x, **kwargs)
        return y, buffers

    found = plant(NORM, dtype, forgetful)
    assert ("buffers", "train", "running_mean") in found
    assert ("buffers", "train", "running_var") in found
    assert not any(key[:2] == ("output", "train") for key in found)


def test_inference_that_writes(plant):
    """One bit is enough, where the tolerance would let it pass."""

    def restless(forward, *args, training, **kwargs):
        y, buffers = forward(*args, training=training, **kwargs)
        if not training:
            mean = buffers["running_mean"]
            buffers = buffers | {"running_mean": mean * (1 + 2**-52)}
        return y, buffers

    found = plant(NORM, "float64", restless)
    assert found == {("buffers", "eval", "running_mean")}


def test_other_dtype(plant):
    def promoted(forward, *args, **kwargs):
        y, buffers = forward(*args, **kwargs)
        return y.astype(jnp.float32), buffers

    found = plant(LINEAR, "bfloat16", promoted)
    assert found == {("output", "train", ""), ("output", "eval", "")}


def test_nan(plant, dtype):
    def broken(forward, *args, training, **kwargs):
        y, buffers = forward(*args, training=training, **kwargs)
        return y.at[0].set(jnp.nan) if not training else y, buffers

    assert ("output", "eval", "") in plant(LINEAR, dtype, broken)


def test_other_structure(plant):
    def paired(forward, *args, **kwargs):
        y, buffers = forward(*args, **kwargs)
        return y, buffers | {"steps": jnp.int32(1)}

    with pytest.raises(ValueError, match="linear: got results of the struct"):
        plant(LINEAR, "float64", paired)


def test_wrong_second_derivative(plant):
    """The output and the first derivative are right; the second is not."""

    @jax.custom_jvp
    def square(x):
        return x * x

    @square.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return x * x, 2 * jax.lax.stop_gradient(x) * t

    def flat(forward, params, buffers, x, **kwargs):
        y, buffers = forward(params, buffers, x, **kwargs)
        return y + square(x) - x * x, buffers

    assert plant(NORM, "float64", flat) == set()
    found = plant(NORM, "float64", flat, judge.curvature)
    assert found == {("curvature", "train", "input 0")}
