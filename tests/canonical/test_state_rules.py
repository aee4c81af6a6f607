"""The rules of `state.py`: one canonical form of whatever is composed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.layers.table import LAYERS
from common.registry import find_constructors
from impl_equinox import canonical as equinox_state
from impl_equinox.named import NamedParameters
from impl_flax import canonical as flax_state

ROWS = {name: row() for name, row in LAYERS.items() if row().variables()}
KEY = jr.key(0)


def maker(library, name):
    return find_constructors(library)[name].make


def same(left, right):
    """Whether two dicts hold the same bits under the same names."""
    return left.keys() == right.keys() and all(
        np.shape(left[name]) == np.shape(right[name])
        and np.array_equal(left[name], right[name])
        for name in left
    )


def shapes(arrays):
    return {name: np.shape(x) for name, x in arrays.items()}


# --- every layer of the table, in one model of each library -----------------


class EquinoxPart(eqx.Module):
    rows: dict
    more: list

    def __init__(self, key):
        self.rows = {
            name: maker("equinox", name)(**row.options(), key=key)
            for name, row in ROWS.items()
        }
        self.more = [eqx.nn.Linear(2, 3, key=key)]


class EquinoxModel(eqx.Module):
    parts: list

    def __init__(self, key):
        self.parts = [eqx.nn.Identity(), EquinoxPart(key)]


class FlaxPart(nnx.Module):
    def __init__(self, rngs):
        self.rows = nnx.Dict(
            {
                name: maker("flax", name)(**row.options(), rngs=rngs)
                for name, row in ROWS.items()
            }
        )
        self.more = nnx.List([nnx.Linear(2, 3, rngs=rngs)])


class FlaxModel(nnx.Module):
    def __init__(self, rngs):
        self.parts = nnx.List([nnx.identity, FlaxPart(rngs)])


def equinox_round_trip(params, buffers):
    """Writes and reads; returns the arrays, and native shapes around it."""
    model, state = eqx.filter_eval_shape(
        eqx.nn.make_with_state(EquinoxModel), KEY
    )
    parameters = equinox_state.parameters(model)
    statistics = equinox_state.buffers(model, state)
    new = (
        equinox_state.write(model, parameters, params),
        equinox_state.write(state, statistics, buffers),
    )
    read = (
        equinox_state.read(new[0], parameters),
        equinox_state.read(new[1], statistics),
    )
    return read, *(native_shapes(it) for it in ((model, state), new))


def flax_round_trip(params, buffers):
    module = nnx.eval_shape(lambda: FlaxModel(nnx.Rngs(0)))
    before = native_shapes(nnx.state(module))
    parameters = flax_state.layouts(module, nnx.Param)
    statistics = flax_state.layouts(module, nnx.BatchStat)
    flax_state.write(module, parameters, params)
    flax_state.write(module, statistics, buffers)
    read = (
        flax_state.read(module, parameters),
        flax_state.read(module, statistics),
    )
    return read, before, native_shapes(nnx.state(module))


def native_shapes(tree):
    return [x.shape for x in jax.tree.leaves(tree) if hasattr(x, "shape")]


def canonical(trainable):
    """Random arrays of every layer, under the paths that both models have."""
    rng = np.random.default_rng(0)
    variables = {
        f"parts.1.rows.{name}.{leaf}": variable
        for name, row in ROWS.items()
        for leaf, variable in row.variables().items()
        if variable.trainable == trainable
    }
    arrays = {}
    for name, variable in variables.items():
        dtype = variable.init(KEY, variable.shape).dtype
        x = rng.normal(size=variable.shape)
        arrays[name] = (
            x if dtype == np.float32 else np.asarray(np.abs(9 * x), dtype)
        )
    if trainable:
        arrays["parts.1.more.0.weight"] = rng.normal(size=(3, 2))
        arrays["parts.1.more.0.bias"] = rng.normal(size=3)
    return arrays


def problems(round_trip):
    params, buffers = canonical(True), canonical(False)
    (new_params, new_buffers), before, after = round_trip(params, buffers)
    found = []
    if shapes(new_params) != shapes(params):
        found.append("names or shapes of parameters")
    if shapes(new_buffers) != shapes(buffers):
        found.append("names or shapes of buffers")
    if not (same(new_params, params) and same(new_buffers, buffers)):
        found.append("values")
    if before != after:
        found.append("native shapes")
    return found


both = pytest.mark.parametrize(
    "round_trip", [equinox_round_trip, flax_round_trip]
)


@both
def test_all_layers_in_one_model(round_trip):
    assert problems(round_trip) == []


def test_a_lost_rule_is_seen(monkeypatch):
    monkeypatch.delitem(flax_state.LAYOUTS, (nnx.LinearGeneral, "kernel"))
    monkeypatch.delitem(equinox_state.PARAMETERS, (eqx.nn.Conv, "bias"))
    assert problems(flax_round_trip) == ["native shapes"]
    assert problems(equinox_round_trip) == ["native shapes"]


def test_a_rule_that_is_not_undone_is_seen(monkeypatch):
    def rule(layer, array):
        return {"to_native": lambda x: 2 * x}

    monkeypatch.setitem(flax_state.LAYOUTS, (nnx.Embed, "embedding"), rule)
    monkeypatch.setitem(
        equinox_state.PARAMETERS, (eqx.nn.Embedding, "weight"), rule
    )
    assert problems(flax_round_trip) == ["values"]
    assert problems(equinox_round_trip) == ["values"]


def test_a_lost_name_is_seen(monkeypatch):
    monkeypatch.delitem(flax_state.NAMES, nnx.Embed)
    with pytest.raises(KeyError, match="embedding"):
        problems(flax_round_trip)


# --- layers without a rule --------------------------------------------------


def test_an_unknown_layer_keeps_its_names():
    class EquinoxScale(eqx.Module):
        gain: jax.Array
        count: eqx.nn.StateIndex

        def __init__(self):
            self.gain = jnp.ones((2, 3))
            self.count = eqx.nn.StateIndex(jnp.array(0))

    class FlaxScale(nnx.Module):
        def __init__(self):
            self.gain = nnx.Param(jnp.ones((2, 3)))
            self.count = nnx.BatchStat(jnp.array(0))

    model, state = eqx.nn.make_with_state(EquinoxScale)()
    parameters = equinox_state.parameters(model)
    assert shapes(equinox_state.read(model, parameters)) == {"gain": (2, 3)}
    buffers = equinox_state.buffers(model, state)
    assert equinox_state.names(buffers) == ["count"]

    module = FlaxScale()
    parameters = flax_state.layouts(module, nnx.Param)
    assert shapes(flax_state.read(module, parameters)) == {"gain": (2, 3)}
    buffers = flax_state.layouts(module, nnx.BatchStat)
    assert flax_state.names(buffers) == ["count"]


def test_a_slope_of_no_common_layout_is_refused():
    layer = eqx.nn.PReLU(jnp.ones((3, 2, 2)))
    expected = r"PReLU negative_slope: got the shape \(3, 2, 2\), expected"
    with pytest.raises(ValueError, match=expected):
        equinox_state.parameters(layer)


# --- stacked layers ---------------------------------------------------------


def mlp(depth, scan):
    return eqx.nn.MLP(2, 3, 4, depth, scan=scan, key=KEY)


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_a_scanned_mlp_has_the_names_of_a_plain_one(depth):
    plain, scanned = mlp(depth, False), mlp(depth, True)
    arrays = equinox_state.read(plain, equinox_state.parameters(plain))
    layouts = equinox_state.parameters(scanned)
    assert set(equinox_state.names(layouts)) == set(arrays)

    arrays = {name: x + 1 for name, x in arrays.items()}
    new = equinox_state.write(scanned, layouts, arrays)
    assert same(equinox_state.read(new, layouts), arrays)
    assert native_shapes(new) == native_shapes(scanned)
    plain = equinox_state.write(plain, equinox_state.parameters(plain), arrays)
    x = jnp.ones(2)
    assert np.array_equal(plain(x), new(x))


def test_an_optimizer_sees_the_parts_of_a_stack():
    model = eqx.filter(mlp(3, True), eqx.is_array)
    named = NamedParameters(model)
    flat = named.to_names(model)
    assert flat.keys() == named.layouts.keys()
    assert flat["layers.2.weight"].shape == (4, 4)
    back = named.to_native(flat)
    assert eqx.tree_equal(back, model)
