"""Every activation function there is; the matrix draws only some of them."""

import pytest

from common.comparison import layer_judge as judge
from common.layers import ACTIVATIONS
from common.layers._activation import Activation

pytestmark = pytest.mark.usefixtures("forgets")


@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_function_is_its_definition(function, backend):
    layer = Activation(function=function)
    findings = judge.measure(layer, backend, "float64", quick=True)
    assert [str(it) for it in findings if not it.ok] == []


def test_another_definition_is_seen(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "silu", ACTIVATIONS["relu"])
    judge.compiled.cache_clear()
    layer = Activation(function="silu")
    findings = judge.measure(layer, "flax", "float64", quick=True)
    judge.compiled.cache_clear()
    assert any(not it.ok for it in findings)
