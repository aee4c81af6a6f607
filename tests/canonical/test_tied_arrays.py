"""Tied arrays have one name, and random state is restored bit for bit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.layouts import Role
from impl_equinox import canonical as equinox_canonical
from impl_equinox import layers as equinox_layers
from impl_flax import canonical as flax_canonical
from impl_flax import layers as flax_layers

KEY = jr.key(0)


def same(left, right):
    """Whether two dicts hold the same bits under the same names."""
    return left.keys() == right.keys() and all(
        np.shape(left[name]) == np.shape(right[name])
        and np.array_equal(left[name], right[name])
        for name in left
    )


def shapes(arrays):
    return {name: np.shape(x) for name, x in arrays.items()}


# --- tied arrays ------------------------------------------------------------

TIED = {
    "ends.1.weight": "ends.0.weight",
    "ends.1.bias": "ends.0.bias",
}


class EquinoxTied(eqx.Module):
    ends: eqx.nn.Shared

    def __init__(self, first=0):
        """Ties two layers, of which the one at `first` is kept."""
        pair = [eqx.nn.Linear(2, 3, key=jr.key(i)) for i in range(2)]
        self.ends = eqx.nn.Shared(
            pair, lambda pair: pair[1 - first], lambda pair: pair[first]
        )


class FlaxTied(nnx.Module):
    def __init__(self):
        layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.ends = nnx.List([layer, layer])


@pytest.mark.parametrize("first", [0, 1])
def test_tied_arrays_have_one_name_in_both_libraries(first):
    model, module = EquinoxTied(first), FlaxTied()
    assert equinox_canonical.aliases(model) == TIED
    assert flax_canonical.aliases(module) == TIED

    ours = equinox_canonical.Layouts(model)
    theirs = flax_canonical.Layouts(module)
    arrays = ours.read(model)
    assert arrays.keys() == set(TIED.values())
    assert theirs.shapes == shapes(arrays)

    arrays = {name: np.asarray(x) + 1 for name, x in arrays.items()}
    model = ours.write(model, arrays)
    theirs.write(module, arrays)
    for layer in model.ends():
        assert np.array_equal(layer.weight, arrays["ends.0.weight"])
    for layer in module.ends:
        assert np.array_equal(layer.kernel[...].T, arrays["ends.0.weight"])
    assert same(ours.read(model), arrays)
    assert same(theirs.read(module), arrays)


def test_tied_statistics():
    class Model(eqx.Module):
        norms: eqx.nn.Shared

        def __init__(self):
            norm = equinox_layers.BatchNorm(2, "batch")
            self.norms = eqx.nn.Shared(
                [norm, norm], lambda pair: pair[0], lambda pair: pair[1]
            )

    class Module(nnx.Module):
        def __init__(self):
            norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
            self.norms = nnx.List([norm, norm])

    ours = equinox_canonical.Layouts(eqx.nn.make_with_state(Model)())
    theirs = flax_canonical.Layouts(Module())
    assert ours.aliases == theirs.aliases
    assert "norms.1.running_mean" in ours.aliases
    assert set(ours.names(Role.BUFFER)) == set(theirs.names(Role.BUFFER))


def test_arrays_that_are_equal_are_not_tied():
    layer = eqx.nn.Linear(2, 3, key=KEY)
    model = eqx.nn.Sequential([layer, layer])
    assert equinox_canonical.aliases(model) == {}
    untied = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)) for _ in range(2)])
    assert flax_canonical.aliases(untied) == {}


def test_tied_weights_of_an_embedding_and_its_transpose():
    pair = (
        eqx.nn.Embedding(5, 3, key=KEY),
        eqx.nn.Linear(3, 5, key=KEY),
    )
    model = eqx.nn.Shared(
        pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight
    )
    assert equinox_canonical.aliases(model) == {"1.weight": "0.weight"}
    pair = eqx.nn.Linear(3, 5, key=KEY), eqx.nn.Linear(5, 3, key=KEY)
    model = eqx.nn.Shared(
        pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight.T
    )
    assert equinox_canonical.aliases(model) == {}
    assert "0.weight" in equinox_canonical.Layouts(model).names()


def test_tied_arrays_of_two_layouts_are_refused():
    expected = "tied array '.*': got a layout other than that of"
    pair = (
        eqx.nn.ConvTranspose1d(2, 2, 3, key=KEY),
        eqx.nn.Conv1d(2, 2, 3, key=KEY),
    )
    model = eqx.nn.Shared(
        pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight
    )
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.aliases(model)

    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    embed = nnx.Embed(3, 3, rngs=nnx.Rngs(0))
    linear.kernel = embed.embedding
    with pytest.raises(ValueError, match=expected):
        flax_canonical.aliases(nnx.List([linear, embed]))


# --- random state -----------------------------------------------------------


def test_streams_of_flax_come_back_bit_for_bit():
    class Module(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0, noise=jr.PRNGKey(1))
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.rngs = rngs
            self.old = nnx.RngKey(jr.PRNGKey(7), tag="old")

    module = Module()
    module.rngs.noise()
    layouts = flax_canonical.Layouts(module)
    arrays = layouts.read(module, Role.RANDOM_STATE)
    assert {name: (x.dtype, x.shape) for name, x in arrays.items()} == {
        **{
            f"{path}.{leaf}": (np.dtype(dtype), shape)
            for path in ("dropout.rngs", "rngs.default", "rngs.noise")
            for leaf, dtype, shape in (
                ("key", "uint32", (2,)),
                ("count", "int32", ()),
            )
        },
        "old": (np.dtype("uint32"), (2,)),
    }
    assert arrays["rngs.noise.count"] == 1

    other = Module()
    other.rngs.default()
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    layouts.write(other, arrays, Role.RANDOM_STATE)
    assert same(layouts.read(other), arrays)
    x = jnp.ones(9)
    assert np.array_equal(other.dropout(x), module.dropout(x))
    assert other.rngs.noise() == module.rngs.noise()
    assert other.rngs.noise.count[...].dtype == jnp.uint32


def test_keys_and_constants_of_equinox_come_back_bit_for_bit():
    class Model(eqx.Module):
        linear: eqx.nn.Linear
        new: jax.Array
        old: jax.Array
        other: jax.Array
        large: jax.Array

    linear = eqx.nn.Linear(2, 3, key=KEY)
    keys = jr.key(1), jr.PRNGKey(2), jr.key(3, impl="rbg")
    model = Model(linear, *keys, jnp.array(2**40))
    layouts = equinox_canonical.Layouts(model)
    roles = Role.RANDOM_STATE, Role.CONSTANT
    arrays = layouts.read(model, *roles)
    assert {name: (x.dtype, x.shape) for name, x in arrays.items()} == {
        "new": (np.dtype("uint32"), (2,)),
        "old": (np.dtype("uint32"), (2,)),
        "other": (np.dtype("uint32"), (4,)),
        # A constant keeps its dtype: its values may not fit in int32.
        "large": (np.dtype("int64"), ()),
    }
    # A key of the old style is an array like any other.
    assert layouts.names(Role.CONSTANT) == ["old", "large"]
    arrays = {name: np.asarray(x) + 1 for name, x in arrays.items()}
    new = layouts.write(model, arrays, *roles)
    assert same(layouts.read(new, *roles), arrays)
    assert [x.dtype for x in jax.tree.leaves(new)] == [
        x.dtype for x in jax.tree.leaves(model)
    ]
    role = Role.PARAMETER
    assert same(layouts.read(new, role), layouts.read(model, role))


# --- one model, both libraries ----------------------------------------------


def test_a_tied_model_computes_the_same_in_both_libraries():
    model, module = EquinoxTied(), FlaxTied()
    arrays = equinox_canonical.Layouts(model).read(model)
    flax_canonical.Layouts(module).write(module, arrays)
    x = jr.normal(KEY, (4, 2))
    first, second = model.ends()
    assert np.array_equal(jax.vmap(first)(x), jax.vmap(second)(x))
    assert np.array_equal(module.ends[0](x), module.ends[1](x))


def test_a_scalar_linear_of_flax_is_that_of_equinox():
    layer = flax_layers.ScalarLinear("scalar", "scalar", rngs=nnx.Rngs(0))
    assert layer(jnp.ones(5)).shape == (5,)
    assert flax_canonical.Layouts(layer).names() == ["bias", "weight"]
