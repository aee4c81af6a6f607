"""The paths of modules that a function closes over are in the report."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common import diff
from common.divergence.closures import with_named_modules

MODEL = eqx.nn.MLP(3, 3, 3, depth=2, key=jr.key(0))
X = jr.normal(jr.key(0), (3,))


def of_global(x):
    return MODEL(x)


def of_closure(model):
    def call(x):
        return model(x)

    return call


def entered(model):
    """Returns a function whose module is in a function that it closes over."""
    call = of_closure(model)
    return lambda x: call(x)


def wrong(model):
    """Returns the model with another second layer."""
    changed = model.layers[1].weight * 1.5
    return eqx.tree_at(lambda m: m.layers[1].weight, model, changed)


CALLS = {
    "global": lambda model: of_global,
    "closure": of_closure,
    "closure of a closure": entered,
    "partial": lambda model: functools.partial(lambda m, x: m(x), model),
}


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS.keys())
def test_the_layer_is_named(make):
    found = diff(make(MODEL), of_closure(wrong(MODEL)), X)
    assert not found.ok
    assert "in layers[1]" in str(found)


def test_the_layer_of_an_nnx_module_is_named():
    first, second = (nnx.Linear(3, 3, rngs=nnx.Rngs(k)) for k in (0, 1))
    changed = nnx.clone(second)
    changed.kernel[...] *= 1.5
    left, right = (nnx.Sequential(first, x) for x in (second, changed))
    found = diff(of_closure(left), of_closure(right), X)
    assert not found.ok
    assert "in layers[1]" in str(found)


def test_a_function_without_modules_is_returned_as_it_is():
    scale = jnp.ones(3)

    def plain(x):
        return jax.nn.relu(scale * x)

    def refuse(values):
        return values

    assert with_named_modules(plain, refuse) is plain


def test_a_copy_behaves_as_the_function():
    @functools.wraps(of_global)
    def call(x, *, scale=2.0):
        return scale * MODEL(x)

    copy = with_named_modules(
        call,
        lambda values: (wrong(values[0]),) if values[0] is MODEL else values,
    )
    assert copy is not call
    assert copy.__name__ == "of_global"
    assert copy.__kwdefaults__ == {"scale": 2.0}
    assert np.array_equal(copy(X), 2 * wrong(MODEL)(X))
    assert np.array_equal(call(X), 2 * MODEL(X))
