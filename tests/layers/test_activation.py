"""Activation functions at special values, and in both libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import layers
from common.comparison import layer_judge as judge
from common.layers import ACTIVATIONS
from common.layers.table import Activation
from tests.layers.numeric import assert_agrees


def test_relu_returns_the_positive_part():
    x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0])
    expected = np.array([0, 0, 0, 1e-300, 3.0])
    assert_agrees(layers.relu(jnp.array(x)), expected)


def test_the_gradient_of_relu_at_zero_is_zero():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    gradient = jax.grad(lambda x: jnp.sum(layers.relu(x)))(x)
    assert gradient.tolist() == [0, 0, 0, 1]


def test_relu_propagates_nan_and_infinity():
    """So that an error in an earlier layer stays visible."""
    x = jnp.array([-np.inf, np.nan, np.inf])
    assert_agrees(layers.relu(x), np.array([0, np.nan, np.inf]))


# The layer matrix draws only some of the functions.
@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_every_activation_agrees_with_its_definition(function, backend):
    layer = Activation(function=function)
    findings = judge.measure(layer, backend, "float64", quick=True)
    assert [str(finding) for finding in findings if not finding.ok] == []


def test_a_wrong_definition_is_detected(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "silu", ACTIVATIONS["relu"])
    judge.compiled.cache_clear()
    layer = Activation(function="silu")
    findings = judge.measure(layer, "flax", "float64", quick=True)
    judge.compiled.cache_clear()
    assert not all(finding.ok for finding in findings)
