"""Which arrays of one model make which of another."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import pytest
from flax import nnx

from common.comparison.mapping import (
    Mapping,
    by_canonical_name,
    is_parameter,
    mapping_of,
)
from common.layouts import Concatenate, Layout, Transpose
from common.native import NativeModel


class Left(eqx.Module):
    linear: eqx.nn.Linear
    scale: jnp.ndarray

    def __init__(self):
        self.linear = eqx.nn.Linear(2, 2, key=jr.key(0))
        self.scale = jnp.ones(2)

    def __call__(self, x):
        return self.scale * self.linear(x)


class Right(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.scale = nnx.BatchStat(jnp.ones(2))

    def __call__(self, x):
        return self.scale[...] * self.linear(x)


MODELS = NativeModel(Left()), NativeModel(Right())
FUSED = Mapping(
    {
        "ab": Layout(
            (Layout.of("a", (2,)), Layout.of("b", (2,))),
            Concatenate(0, (2, 2)),
        ),
        "c.0": Layout.of("c", (2,)),
        "c.1": Layout.of("c", (2,)),
        "d": Layout.of("d", (2,)),
    },
    "by hand",
)


def test_sources_and_targets():
    assert FUSED.sources("ab") == ("a", "b")
    assert FUSED.targets("c") == ("c.0", "c.1")
    assert FUSED.targets("nowhere") == ()


def test_an_array_is_named_on_both_sides():
    assert FUSED.label_left("a") == "a ~ ab"
    assert FUSED.label_right("ab") == "a, b ~ ab"
    assert FUSED.label_left("c") == "c ~ c.0, c.1"
    assert FUSED.label_left("d") == FUSED.label_right("d") == "d"


def test_only_what_both_sides_train_is_trained():
    """The scale is a parameter on the left, and a buffer on the right."""
    found = by_canonical_name(*MODELS)
    assert found.layouts.keys() == {"linear.kernel", "linear.bias", "scale"}
    assert is_parameter(MODELS[0].infos["scale"])
    assert not is_parameter(MODELS[1].infos["scale"])
    assert set(found.trained(*MODELS)) == {"linear.weight", "linear.bias"}


def test_the_types_of_layers_say_the_axis_order():
    found = by_canonical_name(*MODELS)
    assert found.layouts["linear.kernel"] == Layout.of(
        "linear.weight", (2, 2), Transpose((1, 0))
    )


def test_names_or_shapes_that_differ_are_refused():
    other = NativeModel(eqx.nn.Linear(2, 3, key=jr.key(0)))
    with pytest.raises(ValueError, match=r"rules: got the arrays \['bias"):
        by_canonical_name(other, MODELS[1])


def test_the_given_rules_are_used_as_they_are():
    layouts = {"linear.bias": Layout.of("linear.bias", (2,))}
    natives = Left(), Right()
    found = mapping_of(natives, (None, None), (None, None), layouts)
    assert found == Mapping(layouts, "the given layouts")
    with pytest.raises(ValueError, match="got 'serve' and layouts, expected"):
        mapping_of(natives, (None, None), (None, None), layouts, "serve")
    found = mapping_of(
        natives,
        (None, None),
        (None, None),
        "linear -> linear\nscale -> scale",
    )
    assert found.origin == "the given rules"
    assert found.layouts == by_canonical_name(*MODELS).layouts
