"""The rules of both libraries give a model of any layers one form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.layers.table import LAYERS
from common.layouts import Leaf, Role, Rule, Transpose
from common.registry import find_constructors
from impl_equinox import canonical as equinox_canonical
from impl_equinox.rules import RULES as EQUINOX_RULES
from impl_flax import canonical as flax_canonical
from impl_flax import layers as flax_layers
from impl_flax.rules import RULES as FLAX_RULES

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


def equinox_round_trip(arrays):
    """Writes and reads; returns the arrays, and native shapes around it."""
    native = equinox_canonical.abstract(
        lambda: eqx.nn.make_with_state(EquinoxModel)(KEY)
    )
    layouts = equinox_canonical.Layouts(native)
    new = layouts.write(native, arrays, Role.PARAMETER, Role.BUFFER)
    read = layouts.read(new, Role.PARAMETER, Role.BUFFER)
    return read, native_shapes(native), native_shapes(new)


def flax_round_trip(arrays):
    module = flax_canonical.abstract(lambda: FlaxModel(nnx.Rngs(0)))
    before = native_shapes(nnx.state(module))
    layouts = flax_canonical.Layouts(module)
    layouts.write(module, arrays, Role.PARAMETER, Role.BUFFER)
    read = layouts.read(module, Role.PARAMETER, Role.BUFFER)
    return read, before, native_shapes(nnx.state(module))


def native_shapes(tree):
    return [x.shape for x in jax.tree.leaves(tree) if hasattr(x, "shape")]


def random_arrays():
    """Draws arrays of every layer, under the names that both models have."""
    rng = np.random.default_rng(0)
    arrays = {
        "parts.1.more.0.weight": rng.normal(size=(3, 2)),
        "parts.1.more.0.bias": rng.normal(size=3),
    }
    for name, row in ROWS.items():
        for leaf, variable in row.variables().items():
            dtype = variable.init(KEY, variable.shape).dtype
            x = rng.normal(size=variable.shape)
            arrays[f"parts.1.rows.{name}.{leaf}"] = (
                x if dtype == np.float32 else np.asarray(np.abs(9 * x), dtype)
            )
    return arrays


def problems(round_trip):
    arrays = random_arrays()
    new, before, after = round_trip(arrays)
    found = []
    if shapes(new) != shapes(arrays):
        found.append("names or shapes")
    if not same(new, arrays):
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


def test_a_missing_rule_is_seen(monkeypatch):
    monkeypatch.delitem(FLAX_RULES, nnx.LinearGeneral)
    monkeypatch.delitem(EQUINOX_RULES, eqx.nn.WeightNorm)
    expected = r"rows\.{}.* of the model|rows\.{}.*which the model does not"
    with pytest.raises(
        ValueError, match=expected.format(*["linear_general"] * 2)
    ):
        problems(flax_round_trip)
    with pytest.raises(
        ValueError, match=expected.format(*["weight_norm"] * 2)
    ):
        problems(equinox_round_trip)


def test_a_rule_that_is_not_undone_is_seen(monkeypatch):
    def rule(layer, shape):
        del layer, shape
        return (WrongTranspose((1, 0)),)

    rules = {"weight": Leaf("weight", rule), "embedding": Leaf("weight", rule)}
    monkeypatch.setitem(FLAX_RULES, nnx.Embed, Rule(rules))
    monkeypatch.setitem(EQUINOX_RULES, eqx.nn.Embedding, Rule(rules))
    for round_trip in (flax_round_trip, equinox_round_trip):
        with pytest.raises(ValueError, match="got the shape"):
            problems(round_trip)


class WrongTranspose(Transpose):
    """A step whose inverse does nothing."""

    def inverse(self, shape):
        del shape
        return Transpose((0, 1))


def test_a_rule_of_a_subclass_wins_whatever_the_order(monkeypatch):
    class Linear(nnx.Linear):
        pass

    linear = Linear(2, 3, rngs=nnx.Rngs(0))
    assert flax_canonical.Layouts(linear).names() == ["bias", "weight"]
    # Before and after the rule of the base class.
    for rules in (
        {Linear: Rule({"kernel": Leaf("matrix")}), **FLAX_RULES},
        {**FLAX_RULES, Linear: Rule({"kernel": Leaf("matrix")})},
    ):
        monkeypatch.setattr(flax_canonical, "RULES", rules)
        layouts = flax_canonical.Layouts(linear)
        assert layouts.names() == ["bias", "matrix"]
        assert layouts.shapes["matrix"] == (2, 3)


# --- layers without a rule --------------------------------------------------


def test_a_layer_without_a_rule_keeps_its_names():
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

    for layouts in (
        equinox_canonical.Layouts(eqx.nn.make_with_state(EquinoxScale)()),
        flax_canonical.Layouts(FlaxScale()),
    ):
        assert layouts.shapes == {"gain": (2, 3), "count": ()}
        assert layouts.names(Role.PARAMETER) == ["gain"]
        assert layouts.names(Role.BUFFER) == ["count"]


def test_a_slope_of_no_common_layout_is_refused():
    layer = eqx.nn.PReLU(jnp.ones((3, 2, 2)))
    expected = r"PReLU negative_slope: got the shape \(3, 2, 2\), expected"
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.Layouts(layer)


# --- stacked layers ---------------------------------------------------------


def mlp(depth, scan):
    return eqx.nn.MLP(2, 3, 4, depth, scan=scan, key=KEY)


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_a_scanned_mlp_has_the_names_of_a_plain_one(depth):
    plain, scanned = mlp(depth, False), mlp(depth, True)
    layouts = equinox_canonical.Layouts(scanned)
    plain_layouts = equinox_canonical.Layouts(plain)
    arrays = plain_layouts.read(plain)
    assert set(layouts.names()) == set(arrays)

    arrays = {name: x + 1 for name, x in arrays.items()}
    new = layouts.write(scanned, arrays)
    assert same(layouts.read(new), arrays)
    assert native_shapes(new) == native_shapes(scanned)
    plain = plain_layouts.write(plain, arrays)
    x = jnp.ones(2)
    assert np.array_equal(plain(x), new(x))


@pytest.mark.parametrize("depth", [1, 3])
def test_an_optimizer_sees_the_parts_of_a_stack(depth):
    model = eqx.filter(mlp(depth, True), eqx.is_array)
    layouts = equinox_canonical.Layouts(model)
    flat = layouts.to_names(model)
    assert flat.keys() == set(layouts.names())
    assert flat["layers.1.weight"].shape == (3 if depth == 1 else 4, 4)
    assert eqx.tree_equal(layouts.to_native(flat), model)
    canonical = layouts.to_canonical(model)
    assert eqx.tree_equal(layouts.from_canonical(canonical), model)


# --- ensembles --------------------------------------------------------------


def test_an_ensemble_has_the_layout_of_its_layers():
    """A library's `vmap` adds a leading axis, which stays in front."""
    keys = jr.split(KEY, 5)
    model = eqx.filter_vmap(
        lambda key: (
            eqx.nn.Linear(2, 3, key=key),
            eqx.nn.Conv2d(4, 6, (3, 2), key=key),
            eqx.nn.ConvTranspose1d(4, 6, 3, groups=2, key=key),
        )
    )(keys)

    @nnx.split_rngs(splits=5)
    @nnx.vmap
    def make(rngs):
        return nnx.List(
            [
                nnx.Linear(2, 3, rngs=rngs),
                nnx.Conv(4, 6, (3, 2), rngs=rngs),
                flax_layers.ConvTranspose(4, 6, (3,), groups=2, rngs=rngs),
            ]
        )

    ours = equinox_canonical.Layouts(model)
    theirs = flax_canonical.Layouts(make(nnx.Rngs(0)))
    assert ours.shapes == theirs.shapes
    first = [jax.tree.map(lambda x: x[1], layer) for layer in model]
    alone = equinox_canonical.Layouts(first).read(first)
    whole = ours.read(model)
    assert same({name: x[1] for name, x in whole.items()}, alone)
