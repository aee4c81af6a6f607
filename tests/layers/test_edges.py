"""NaN in masked elements, for the definitions and for both libraries."""

import jax
import numpy as np
import pytest

from common.comparison import layer_judge as judge
from common.layers.table import LAYERS

SIDES = ("reference", "equinox", "flax")


def run(layer, side, case):
    """Calls a layer in training in float64, and differentiates it."""
    buffers = {
        name: x.astype("float64") if np.issubdtype(x.dtype, np.floating) else x
        for name, x in case.buffers.items()
    }
    call = judge.compiled(layer, side, "float64", True, True)
    return jax.device_get(call(case.params, buffers, *case.calls[0]))


# --- elements that a mask excludes ------------------------------------------


MASKED = {
    "layer_norm": {},
    "batch_norm-standard": {},
    "batch_norm-torch": {"dialect": "torch"},
}
# The stock layers that the catalogue of known differences names.
STOCK = (("layer_norm", "flax"), ("batch_norm-standard", "flax"))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MASKED)
def test_nan_in_an_excluded_element_leaves_the_gradient_alone(name, side):
    layer = LAYERS[name.split("-")[0]](masked=True, **MASKED[name])
    case = judge.draw(layer, 3, seed=0)
    (x, mask), weights, key = case.calls[0]
    weights = np.where(mask, weights, 0)
    results = []
    for value in (0, np.nan, np.inf):
        inputs = np.where(mask, x, value), mask
        call = judge.Call(inputs, weights, key)
        results.append(run(layer, side, case._replace(calls=(call,))))
    expected, *others = results
    for got in others:
        finite = [np.isfinite(g).all() for g in got["gradients"].values()]
        if (name, side) in STOCK:
            assert not all(finite)
            continue
        assert all(finite)
        assert jax.tree.all(
            jax.tree.map(
                np.array_equal, got["gradients"], expected["gradients"]
            )
        )
        shown = np.broadcast_to(mask, x.shape)
        assert np.array_equal(got["output"][shown], expected["output"][shown])
        assert not np.isfinite(got["output"][~shown]).any()
