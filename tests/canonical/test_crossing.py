"""The rules invert, and compose from one library to the other."""

import math
import types

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from common.layers.table import LAYERS
from common.layouts import Layout, Transpose, compose, inverse, simplify
from impl_equinox import rules as equinox_rules
from impl_equinox.canonical import Layouts
from impl_equinox.table import Counterpart as EquinoxCounterpart
from impl_flax import rules as flax_rules
from impl_flax.table import Counterpart as FlaxCounterpart


def numbers(shape):
    return np.arange(math.prod(shape)).reshape(shape)


# --- the rules of both libraries --------------------------------------------

SIZES = st.integers(1, 3)


@st.composite
def convolutions(draw):
    """Draws what a rule reads of a convolution, and its sizes."""
    kernel = tuple(draw(st.lists(SIZES, min_size=1, max_size=2)))
    groups, inputs, outputs = draw(SIZES), draw(SIZES), draw(SIZES)
    layer = types.SimpleNamespace(
        num_spatial_dims=len(kernel),
        groups=groups,
        kernel_size=kernel,
        feature_group_count=groups,
    )
    return layer, kernel, groups * outputs, inputs


@st.composite
def general(draw):
    axes = st.lists(SIZES, min_size=1, max_size=2).map(tuple)
    groups = draw(st.sampled_from([(), (2,)]))
    layer = types.SimpleNamespace(
        batch_axis=dict(enumerate(groups)),
        in_features=draw(axes),
        out_features=draw(axes),
    )
    return layer, groups


@st.composite
def native_arrays(draw):
    """Draws a layer, and the shape of an array of it, for each rule."""
    conv, kernel, outputs, inputs = draw(convolutions())
    layer, groups = draw(general())
    matrix = (draw(SIZES), draw(SIZES))
    wrapper = types.SimpleNamespace(layer=nnx.Linear.__new__(nnx.Linear))
    cases = {
        equinox_rules.convolution_bias: (conv, (outputs, *[1] * len(kernel))),
        equinox_rules.transposed_kernel: (conv, (outputs, inputs, *kernel)),
        equinox_rules.slope: (None, (inputs, 1, 1)),
        flax_rules.matrix: (None, matrix),
        flax_rules.kernel: (conv, (*kernel, inputs, outputs)),
        flax_rules.transposed_kernel: (conv, (*kernel, inputs, outputs)),
        flax_rules.general_kernel: (
            layer,
            (*groups, *layer.in_features, *layer.out_features),
        ),
        flax_rules.general_bias: (layer, (*groups, *layer.out_features)),
        flax_rules.projection_kernel: (
            layer,
            (*layer.in_features, *layer.out_features),
        ),
        flax_rules.projection_bias: (layer, layer.out_features),
        flax_rules.length: (wrapper, (1, inputs)),
    }
    ensemble = draw(st.sampled_from([(), (2,)]))
    return {
        rule: (
            layer,
            shape if rule is equinox_rules.slope else (*ensemble, *shape),
        )
        for rule, (layer, shape) in cases.items()
    }


def layout_rules():
    """All functions that the rules of both libraries name."""
    found = set()
    for rules in (equinox_rules.RULES, flax_rules.RULES):
        for rule in rules.values():
            found |= {leaf.layout for leaf in rule.arrays.values()}
            for part in rule.parts.values():
                found |= set(part.layouts.values())
    return found - {None}


@given(native_arrays())
def test_every_rule_has_an_inverse(arrays):
    assert arrays.keys() == layout_rules()
    for rule, (layer, shape) in arrays.items():
        layout, x = Layout.of("x", shape, *rule(layer, shape)), numbers(shape)
        y = layout(x)
        assert np.array_equal(inverse(layout)(y), x), rule
        assert np.array_equal(simplify(layout)(x), y), rule


@pytest.mark.parametrize("rules", [equinox_rules, flax_rules])
def test_no_rule_is_a_lambda(rules):
    functions = [f for f in vars(rules).values() if callable(f)]
    for f in [*functions, *layout_rules()]:
        assert getattr(f, "__name__", "") != "<lambda>"


# --- from one library to the other ------------------------------------------

ROWS = {name: row() for name, row in LAYERS.items() if row().variables()}


def random_arrays(layouts):
    rng = np.random.default_rng(0)
    return {
        source.name: rng.normal(size=source.shape)
        for layout in layouts.canonical.values()
        for source in layout.sources
    }


@pytest.mark.parametrize("name", ROWS)
def test_composition_equals_going_through_the_canonical_form(name):
    ours = EquinoxCounterpart(ROWS[name]).layouts
    theirs = FlaxCounterpart(ROWS[name]).layouts
    for source, target in ((ours, theirs), (theirs, ours)):
        shared = source.canonical.keys() & target.canonical.keys()
        native = random_arrays(source)
        canonical = {k: source.canonical[k].apply(native) for k in shared}
        wanted = {
            path: layout
            for path, layout in target.native.items()
            if {x.name for x in layout.sources} <= shared
        }
        assert wanted
        direct = compose(source.canonical, wanted)
        for path, layout in direct.items():
            assert np.array_equal(
                layout.apply(native), wanted[path].apply(canonical)
            ), path
            longest = sum(
                len(source.canonical[x.name].steps)
                for x in wanted[path].sources
            )
            assert len(layout.steps) <= longest + len(wanted[path].steps)


def test_equinox_and_flax_convolutions_are_a_transpose_apart():
    """The flips and reshapes of both libraries' rules cancel."""
    row = ROWS["conv_transpose"]
    ours = EquinoxCounterpart(row).layouts
    theirs = FlaxCounterpart(row).layouts
    direct = compose(ours.canonical, theirs.native)
    (layout,) = (x for path, x in direct.items() if "kernel" in path)
    assert [type(step) for step in layout.steps] == [Transpose]


def test_a_scanned_mlp_leads_to_the_layers_of_a_plain_one():
    key = jr.key(0)
    plain, scanned = (
        Layouts(eqx.nn.MLP(2, 3, 4, 3, scan=scan, key=key))
        for scan in (False, True)
    )
    direct = compose(scanned.canonical, plain.native)
    path = "model.layers[2].weight"
    expected = "model.layers[1].weight (2, 4, 4) -> index[1]"
    assert str(direct[path]) == expected
    back = compose(direct, compose(plain.canonical, scanned.native))
    for path, layout in back.items():
        assert layout == Layout.of(path, layout.shape)
