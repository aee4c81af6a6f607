"""Every array of a native object is in the State, or an error names it.

The property: change any one array of a native object, and what is read from
it changes; write what was read into another object, and it has that array.
The arrays are found with each library's own functions, not with ours.
"""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import State
from common.layouts import Leaf, Rule, Slice
from impl_equinox import canonical as equinox_canonical
from impl_equinox.rules import RULES as EQUINOX_RULES
from impl_flax import canonical as flax_canonical
from impl_flax.rules import RULES as FLAX_RULES

KEY = jr.key(0)


# --- models with arrays of every kind ---------------------------------------


class Draws(eqx.Module):
    """Keeps a key, and two statistics of other shapes, in the state."""

    key: eqx.nn.StateIndex
    statistics: eqx.nn.StateIndex

    def __init__(self):
        self.key = eqx.nn.StateIndex(jr.key(5))
        self.statistics = eqx.nn.StateIndex(
            {"mean": jnp.zeros(2), "rows": (jnp.ones((2, 3)), jnp.array(1))}
        )


class EquinoxModel(eqx.Module):
    linear: eqx.nn.Linear
    count: eqx.nn.StateIndex
    draws: Draws
    norm: eqx.nn.BatchNorm
    wrapped: eqx.nn.WeightNorm
    scanned: eqx.nn.MLP
    ensemble: Any
    tied: eqx.nn.Shared
    mask: jax.Array
    table: np.ndarray
    key: jax.Array
    old_key: jax.Array
    containers: dict
    function: Any

    def __init__(self):
        self.linear = eqx.nn.Linear(2, 3, key=KEY)
        self.count = eqx.nn.StateIndex(jnp.array(0))
        self.draws = Draws()
        self.norm = eqx.nn.BatchNorm(2, "batch", mode="batch")
        self.wrapped = eqx.nn.WeightNorm(eqx.nn.Linear(2, 3, key=KEY))
        self.scanned = eqx.nn.MLP(2, 3, 4, 3, scan=True, key=KEY)
        self.ensemble = eqx.filter_vmap(
            lambda key: (
                eqx.nn.Conv2d(2, 3, 3, key=key),
                eqx.nn.ConvTranspose1d(2, 4, 3, groups=2, key=key),
            )
        )(jr.split(KEY, 3))
        pair = [eqx.nn.Linear(2, 2, key=jr.key(i)) for i in range(2)]
        self.tied = eqx.nn.Shared(
            pair, lambda pair: pair[1], lambda pair: pair[0]
        )
        self.mask = jnp.array([True, False])
        self.table = np.arange(4)
        self.key = jr.key(1)
        self.old_key = jr.PRNGKey(2)
        self.containers = {"a": [jnp.arange(3), (jnp.ones(2),)]}
        self.function = jax.nn.relu


class Calls(nnx.Variable):
    """A type of Variable that no library defines."""


class FlaxModel(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0, noise=jr.PRNGKey(1))
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.calls = Calls(jnp.zeros((), jnp.uint8))
        self.cache = nnx.Cache(jnp.zeros((2, 3)))
        self.sown = nnx.Intermediate((jnp.ones(2), {"x": jnp.zeros(1)}))
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.rngs = rngs
        self.cell = nnx.LSTMCell(2, 3, rngs=rngs)
        self.ensemble = make_ensemble(rngs)
        self.first = self.second = nnx.Linear(2, 2, rngs=rngs)
        self.mask = jnp.array([True, False])
        self.table = np.arange(4)
        self.frequencies = jnp.ones(3)
        self.key = jr.key(1)
        self.containers = nnx.data(
            {"a": [nnx.Param(jnp.ones(2)), (jnp.arange(3),)]}
        )
        self.list = nnx.List([jnp.ones(2), nnx.Embed(3, 2, rngs=rngs)])
        self.function = jax.nn.relu


def make_ensemble(rngs):
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return nnx.List(
            [
                nnx.Conv(2, 3, (3, 3), rngs=rngs),
                nnx.ConvTranspose(2, 4, (3,), rngs=rngs),
                nnx.LinearGeneral((2, 2), (3, 2), axis=(-2, -1), rngs=rngs),
                nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs),
            ]
        )

    return make(rngs)


def make_equinox():
    return eqx.nn.make_with_state(EquinoxModel)()


# --- the property -----------------------------------------------------------


class Equinox:
    make = staticmethod(make_equinox)
    canonical = equinox_canonical
    rules = EQUINOX_RULES

    @staticmethod
    def split(native):
        arrays, static = eqx.partition(native, eqx.is_array)
        leaves, treedef = jax.tree.flatten(arrays)
        return leaves, lambda new: eqx.combine(treedef.unflatten(new), static)


class Flax:
    make = FlaxModel
    canonical = flax_canonical
    rules = FLAX_RULES

    @staticmethod
    def split(native):
        graphdef, state = nnx.split(native)
        leaves, treedef = jax.tree.flatten(state)
        return leaves, lambda new: nnx.merge(graphdef, treedef.unflatten(new))


both = pytest.mark.parametrize("library", [Equinox, Flax])


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def data(x):
    return np.asarray(jr.key_data(x) if is_key(x) else x)


def changed(x):
    """Returns another array of the same shape and dtype."""
    if is_key(x):
        return jr.wrap_key_data(jr.key_data(x) + 1, impl=jr.key_impl(x))
    return ~x if x.dtype == bool else x + np.ones((), x.dtype)


def same(left, right):
    return all(
        a.dtype == b.dtype and np.array_equal(data(a), data(b))
        for a, b in zip(left, right, strict=True)
    )


def lost(library) -> list[int]:
    """Returns the numbers of the arrays that are lost on the way."""
    native = library.make()
    layouts = library.canonical.Layouts(native)
    leaves, rebuild = library.split(native)
    before = layouts.read(native)
    found = []
    for i, x in enumerate(leaves):
        # Modules share the arrays that they are rebuilt from.
        new = [changed(x) if i == j else y for j, y in enumerate(leaves)]
        read = layouts.read(rebuild(new))
        same_names = read.keys() == before.keys()
        is_seen = not same_names or not same(read.values(), before.values())
        restored = layouts.write(rebuild(leaves), read)
        if not (is_seen and same(library.split(restored)[0], new)):
            found.append(i)
        # A module is written to in place, so the leaves are taken again.
        leaves = [jnp.array(y) for y in leaves]
    return found


@both
def test_every_array_is_read_and_restored(library):
    assert lost(library) == []


@both
def test_every_array_has_one_path(library):
    native = library.make()
    layouts = library.canonical.Layouts(native)
    assert len(layouts.native) == len(library.split(native)[0])


def test_a_boolean_array_that_is_lost_is_seen(monkeypatch):
    is_array = equinox_canonical.is_array
    monkeypatch.setattr(
        equinox_canonical,
        "is_array",
        lambda x: is_array(x) and x.dtype != bool,
    )
    assert len(lost(Equinox)) == 1


def test_a_type_of_variable_that_is_lost_is_seen(monkeypatch):
    walk = flax_canonical._walk
    monkeypatch.setattr(
        flax_canonical,
        "_walk",
        lambda *arguments: (
            found
            for found in walk(*arguments)
            if not isinstance(found.holder, nnx.Cache)
        ),
    )
    assert len(lost(Flax)) == 1


@both
def test_a_rule_that_drops_elements_is_refused(library, monkeypatch):
    def first_row(layer, shape):
        del layer
        return (Slice(0, 0, 1),)

    kind, attribute = {
        Equinox: (eqx.nn.Linear, "weight"),
        Flax: (nnx.Linear, "kernel"),
    }[library]
    rule = Rule({attribute: Leaf("weight", first_row)})
    monkeypatch.setitem(library.rules, kind, rule)
    expected = r"got only pieces of it .*, expected pieces that cover it once"
    with pytest.raises(ValueError, match=expected):
        library.canonical.Layouts(library.make())


# --- what cannot be in a State is an error ----------------------------------


def test_an_array_in_a_static_field_is_refused():
    class Model(eqx.Module):
        linear: eqx.nn.Linear
        mask: np.ndarray = eqx.field(static=True)

    with pytest.warns(UserWarning, match="set as static"):
        model = [Model(eqx.nn.Linear(2, 3, key=KEY), np.ones(2))]
    expected = r"model\[0\]\.mask: got an array in a static field, expected"
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.Layouts(model)


def test_a_model_without_its_state_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = EquinoxModel()
    expected = r"model\.count: got a StateIndex with its initial value"
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.Layouts(model)


def test_the_state_of_another_model_is_refused():
    model, state = eqx.nn.make_with_state(Draws)()
    del model
    expected = r"state: got 4 arrays to which no StateIndex of the model leads"
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.Layouts((eqx.nn.Identity(), state))


def test_two_arrays_of_one_name_are_refused():
    class Linear(nnx.Linear):
        def __init__(self):
            super().__init__(2, 3, rngs=nnx.Rngs(0))
            self.weight = nnx.BatchStat(jnp.zeros(2))

    expected = r"'weight': got the arrays module\.kernel and module\.weight"
    with pytest.raises(ValueError, match=expected):
        flax_canonical.Layouts(Linear())

    class WeightNorm(eqx.nn.WeightNorm):
        weight_g: jax.Array

        def __init__(self):
            super().__init__(eqx.nn.Linear(2, 3, key=KEY))
            self.weight_g = jnp.zeros(2)

    expected = r"'weight_g': got the arrays model\.g and model\.weight_g"
    with pytest.raises(ValueError, match=expected):
        equinox_canonical.Layouts(WeightNorm())


def test_a_parameter_of_several_arrays_is_refused():
    class Module(nnx.Module):
        def __init__(self):
            self.pair = nnx.Param((jnp.zeros(1), jnp.zeros(2)))

    expected = "pair: got an nnx.Param of a tree of arrays, expected one array"
    with pytest.raises(ValueError, match=expected):
        flax_canonical.Layouts(Module())


@both
def test_arrays_that_do_not_fit_are_refused(library):
    native = library.make()
    layouts = library.canonical.Layouts(native)
    arrays = layouts.read(native)
    weight = arrays.pop("linear.weight")
    expected = (
        r"got nothing for \['linear\.weight'\] and arrays for \['other'\]"
    )
    with pytest.raises(ValueError, match=expected):
        layouts.write(native, {**arrays, "other": weight})
    expected = r"layout of 'linear\.weight': got the shape \(3, 1\), expected"
    with pytest.raises(ValueError, match=expected):
        layouts.write(native, {**arrays, "linear.weight": weight[:, :1]})


# --- a whole run ------------------------------------------------------------


def lost_by_run(trainer) -> list[str]:
    """Returns the leaves of a trainer that its State does not hold."""
    before, start = trainer.state(), trainer.leaves
    found = []
    for i, name in enumerate(trainer.pure.paths):
        leaves = list(start)
        leaves[i] = changed(leaves[i])
        state = State.from_flat(trainer._state(leaves)).numpy()
        state = dataclasses.replace(state, rng={**before.rng, **state.rng})
        arrays = state.flat()
        is_seen = not all(
            np.array_equal(x, arrays[k]) for k, x in before.flat().items()
        )
        restored = trainer.load(state).leaves
        if not (is_seen and same(restored, leaves)):
            found.append(name)
        trainer.load(before)
    return found


def test_every_array_of_a_run_is_saved_and_loaded(model, backend, make):
    trainer = make(model, backend, optimizer=optax.adam(1e-3))
    assert lost_by_run(trainer) == []


def test_an_array_that_a_run_does_not_save_is_seen(make, monkeypatch):
    trainer = make("deep_mlp", "flax", fresh=True)
    start = make("deep_mlp", "reference").state().buffers
    read = type(trainer.backend.layouts).read

    def keep_statistics(self, native, *roles):
        new = read(self, native, *roles)
        return {k: jnp.asarray(start.get(k, x)) for k, x in new.items()}

    monkeypatch.setattr(type(trainer.backend.layouts), "read", keep_statistics)
    assert lost_by_run(trainer) == [
        "['module']['blocks'][0]['norm']['mean'].value",
        "['module']['blocks'][0]['norm']['var'].value",
    ]
