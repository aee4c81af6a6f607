"""What all definitions have in common: dtypes, and the arrays they get."""

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from common import layers

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
def test_a_definition_keeps_the_dtype_of_its_input(layer, dtype):
    function, shapes, options = CALLS[layer]
    arrays = [jnp.ones(shape, dtype) for shape in shapes]
    found = jax.eval_shape(lambda *xs: function(*xs, **options), *arrays)
    assert {x.dtype.name for x in jax.tree.leaves(found)} == {dtype}


def test_stateful_passes_only_the_arrays_of_the_named_layer():
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
