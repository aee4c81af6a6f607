"""What the report says of a row: calls, arrays, defaults, initial values."""

import numpy as np
import pytest

from common.comparison import layer_details, layer_initial
from common.comparison.layer_calls import constructions
from common.comparison.layer_defaults import compare_defaults
from common.layers.recording import parameters
from common.layers.table import LAYERS
from common.registry import (
    find_constructors,
    find_options,
    find_public_layers,
)
from tests.conftest import exhaustive_but

LIBRARIES = ("equinox", "flax")

libraries = pytest.mark.parametrize("library", LIBRARIES)


def arrays(row):
    return {
        array.name: array for array in layer_details.native_arrays(LAYERS[row])
    }


# --- calls ------------------------------------------------------------------


def test_a_call_has_every_setting():
    (call,) = constructions(LAYERS["dropout"](), "flax")
    assert call == (
        "nnx.Dropout(\n"
        "    rate=0.3, broadcast_dims=(),\n"
        "    # Defaults:\n"
        "    deterministic=False, rng_collection='dropout', rngs=None,\n"
        ")"
    )


def test_a_call_without_defaults_is_one_line():
    (call,) = constructions(LAYERS["identity"](), "flax")
    assert call.startswith("nnx.identity(x=<float32 array of shape")


def test_layers_in_a_layer_are_inside_of_its_call():
    (call,) = constructions(LAYERS["sequential"](), "equinox")
    lines = call.splitlines()
    assert lines[:3] == [
        "eqx.nn.Sequential(",
        "    layers=[",
        "        eqx.nn.Linear(",
    ]
    assert "        eqx.nn.Lambda(fn=tanh)," in lines


def test_a_custom_layer_is_shown_without_the_stock_layer_it_extends():
    (call,) = constructions(LAYERS["gru_cell"](), "flax")
    assert call.startswith("layers.GRUCell(")


@libraries
@pytest.mark.parametrize("row", ["multihead_attention", "conv", "sequential"])
def test_calls_are_narrow(row, library):
    for call in constructions(LAYERS[row](), library):
        assert max(map(len, call.splitlines())) <= 79


# --- arrays -----------------------------------------------------------------


def test_shapes_are_in_words():
    found = arrays("multihead_attention")["query_proj.weight"]
    assert found.shape == "(num_heads*head_size, query_size)"
    assert found.native == {
        "equinox": "query_proj.weight (num_heads*head_size, query_size)",
        "flax": "query.kernel (query_size, num_heads, head_size) -> "
        "reshape(query_size, num_heads*head_size) -> transpose",
    }


def test_groups_divide_a_size():
    found = arrays("conv")["weight"]
    assert found.shape == (
        "(out_channels, in_channels/groups, kernel, kernel)"
    )
    assert found.native["flax"].endswith("-> transpose(3, 2, 0, 1)")


def test_arrays_that_are_joined_are_all_shown():
    found = arrays("lstm_cell")["bias"]
    assert found.shape == "(4*hidden_size,)"
    for name in ("hi", "hf", "hg", "ho"):
        assert f"{name}.bias (hidden_size,)" in found.native["flax"]


@pytest.mark.parametrize("row", exhaustive_but(LAYERS, "linear"))
def test_every_row_has_details(row):
    found = layer_details.find_details(LAYERS[row])
    names = list(LAYERS[row]().variables())
    assert [array.name for array in found.arrays] == names
    for library in LIBRARIES:
        kind = find_constructors(library)[row].kind
        assert found.constructions[library] or kind == "composition"


# --- defaults ---------------------------------------------------------------


def shown(arguments):
    return {argument.name: argument.shown.strip("`") for argument in arguments}


def test_defaults_that_differ_are_paired():
    found = compare_defaults(LAYERS["multihead_attention"]).differing
    pairs = {(a.name, a.default, b.name, b.default) for a, b in found}
    assert {
        (f"use_{name}_bias", False, "use_bias", True)
        for name in ("query", "key", "value", "output")
    } <= pairs


@pytest.mark.parametrize(
    ("row", "equinox", "flax"),
    [
        ("batch_norm", {"mode": "'legacy'"}, {"use_fast_variance": "True"}),
        ("multihead_attention", {}, {"broadcast_dropout": "True"}),
        ("rms_norm", {"use_bias": "True"}, {}),
        ("dropout", {"inference": "False"}, {"broadcast_dims": "()"}),
    ],
)
def test_defaults_of_one_library_are_listed(row, equinox, flax):
    found = compare_defaults(LAYERS[row])
    assert equinox.items() <= shown(found.only_equinox).items()
    assert flax.items() <= shown(found.only_flax).items()


def test_arguments_that_are_not_compared_are_left_out():
    found = compare_defaults(LAYERS["linear"])
    assert found == ([], [], [])


@libraries
def test_notes_are_about_arguments_that_exist(library):
    public = find_public_layers(library)
    for dotted in find_options(library).NOTES:
        layer, _, name = dotted.partition(".")
        assert name in parameters(public[layer], "__init__")


def test_the_mode_that_warns_is_the_default():
    layer = find_public_layers("equinox")["BatchNorm"]
    with pytest.warns(UserWarning, match="mode"):
        layer(3, "batch")


# --- initial values ---------------------------------------------------------


def test_initial_values_of_linear_layers():
    found = {
        one.array: one
        for one in layer_initial.initial_values(LAYERS["linear"])
    }
    assert found["weight"].equinox == "uniform, std 0.058"
    assert found["weight"].flax == "truncated normal, std 0.10"
    assert found["bias"].equinox == "uniform, std 0.058"
    assert found["bias"].flax == "0"
    assert all(one.differs for one in found.values())


def test_every_row_with_arrays_has_settings():
    assert layer_initial.WIDE.keys() == {
        name for name, row in LAYERS.items() if row().variables()
    }


def test_a_row_without_settings_raises(monkeypatch, assert_raises):
    monkeypatch.delitem(layer_initial.WIDE, "linear")
    assert_raises(
        lambda: layer_initial.initial_values(LAYERS["linear"]),
        ValueError,
        "initial values of 'linear': got no settings, expected some .*",
    )


def samples():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=40_000)
    cut = normal[np.abs(normal) < 2]
    orthogonal, _ = np.linalg.qr(rng.normal(size=(40, 20)))
    unit = rng.normal(size=200)
    return {
        "0": np.zeros(3),
        "0.25": np.full((), 0.25),
        "True": np.array(True),
        "uniform, std 0.058": rng.uniform(-0.1, 0.1, 400),
        "normal, std 1.0": normal[:400],
        "truncated normal, std 0.088": 0.1 * cut[:10_000],
        "orthogonal, std 0.16": orthogonal,
        "a unit vector": unit / np.linalg.norm(unit),
        "mean 1.0, std 0.010": 1 + normal[:10_000].reshape(-1, 1) / 100,
    }


@pytest.mark.parametrize("text", samples())
def test_a_distribution_is_recognized(text):
    assert layer_initial.describe(samples()[text]) == text
