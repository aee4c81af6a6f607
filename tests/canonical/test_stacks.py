"""The arrays of stacked layers have the names of those of a list."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.layouts import Part, Role, Rule, Stacked
from impl_equinox import canonical as equinox_canonical
from impl_equinox.rules import RULES as EQUINOX_RULES
from impl_flax import canonical as flax_canonical
from impl_flax.rules import RULES as FLAX_RULES

KEY = jr.key(0)


def always(model):
    del model
    return True


def make_linear(key):
    return eqx.nn.Linear(2, 3, key=key)


class Groups(eqx.Module):
    """Two groups of three layers, each stacked."""

    layers: eqx.nn.Linear

    def __init__(self, key):
        make = eqx.filter_vmap(make_linear)
        self.layers = make(jr.split(key, 3))


class EquinoxModel(eqx.Module):
    groups: Groups

    def __init__(self):
        self.groups = eqx.filter_vmap(Groups)(jr.split(KEY, 2))


class Layer(nnx.Module):
    """Has a parameter, a buffer and a key."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


class FlaxModel(nnx.Module):
    def __init__(self):
        make = nnx.split_rngs(splits=2)(nnx.vmap(Layer))
        self.layers = make(nnx.Rngs(0))


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    for owner, name, table in (
        (EquinoxModel, "groups", EQUINOX_RULES),
        (Groups, "layers", EQUINOX_RULES),
        (FlaxModel, "layers", FLAX_RULES),
    ):
        part = Part(name, stacked=always)
        monkeypatch.setitem(table, owner, Rule(parts={name: part}))


def test_a_stack_of_stacks_has_two_numbers():
    model = EquinoxModel()
    layouts = equinox_canonical.Layouts(model)
    names = [
        f"groups.{i}.layers.{j}.{leaf}"
        for leaf in ("weight", "bias")
        for i in range(2)
        for j in range(3)
    ]
    assert layouts.names(Role.PARAMETER) == names
    arrays = layouts.read(model)
    weight = model.groups.layers.weight
    assert np.array_equal(arrays["groups.1.layers.2.weight"], weight[1, 2])
    again = layouts.write(model, arrays)
    assert eqx.tree_equal(again, model)


def test_every_role_of_a_stack_is_taken_apart_and_put_back():
    module = FlaxModel()
    layouts = flax_canonical.Layouts(module)
    roles = {name: layouts.roles[name] for name in layouts.names()}
    assert roles["layers.0.linear.weight"] is Role.PARAMETER
    assert roles["layers.1.norm.running_var"] is Role.BUFFER
    assert roles["layers.1.dropout.rngs.key"] is Role.RANDOM_STATE
    arrays = layouts.read(module)
    kernel = module.layers.linear.kernel[...]
    assert np.array_equal(arrays["layers.1.linear.weight"], kernel[1].T)
    changed = {
        name: x[::-1] if "norm" in name else x for name, x in arrays.items()
    }
    again = layouts.read(layouts.write(FlaxModel(), changed))
    for name, x in changed.items():
        assert np.array_equal(again[name], x), name


def test_a_stack_goes_by_the_name_of_its_first_layer():
    model = EquinoxModel()
    layouts = equinox_canonical.Layouts(model)
    tree = eqx.filter(model, eqx.is_inexact_array)
    whole = layouts.to_stacks(tree)
    assert {name: x.shape for name, x in whole.items()} == {
        "groups.0.layers.0.weight": (2, 3, 3, 2),
        "groups.0.layers.0.bias": (2, 3, 3),
    }
    assert eqx.tree_equal(layouts.from_stacks(whole), tree)
    stack = layouts.stacks["groups.0.layers.0.bias"]
    assert stack.axes == ("groups.*0", "groups.*0.layers.*0")
    assert stack.names[4] == "groups.1.layers.1.bias"


def test_a_stack_and_a_list_of_one_name_are_refused():
    class Both(eqx.Module):
        layers: eqx.nn.Linear
        others: dict

        def __init__(self):
            self.layers = eqx.filter_vmap(make_linear)(jr.split(KEY, 2))
            self.others = {"1": make_linear(KEY)}

    parts = {"layers": Part("x", stacked=always), "others": Part("x")}
    EQUINOX_RULES[Both] = Rule(parts=parts)
    expected = r"canonical name 'x\.1\.(weight|bias)': got a stack and"
    try:
        with pytest.raises(ValueError, match=expected):
            equinox_canonical.Layouts(Both())
    finally:
        del EQUINOX_RULES[Both]


def test_an_array_without_an_axis_for_the_layers_is_refused():
    expected = (
        r"stacked array \.scale: got the shape \(\), expected 1 axes or "
        r"more, one for each stack in 'blocks\.\*0\.scale'\. Make .+"
    )
    with pytest.raises(ValueError, match=expected):
        Stacked("blocks.*0.scale", ".scale", ())


def test_numbers_start_where_the_name_says():
    stack = Stacked("layers.*1.bias", "bias", (2, 4))
    parts = stack.parts()
    assert list(parts) == ["layers.1.bias", "layers.2.bias"]
    x = jnp.arange(8).reshape(2, 4)
    assert jax.numpy.array_equal(parts["layers.2.bias"](x), x[1])
