"""The rows of the layer table, and the public layers that they cover."""

import dataclasses
import itertools

import pytest

from common.layers import Layer
from common.layers.table import LAYERS, Linear, by_name, find_layer
from common.registry import (
    find_constructors,
    find_counterpart,
    find_public_layers,
)

LIBRARIES = ("equinox", "flax")
FAMILIES = (
    "linear",
    "convolution",
    "normalization",
    "recurrent",
    "attention",
    "regularization",
    "pooling",
    "embedding",
    "activation",
)

rows = pytest.mark.parametrize("name", LAYERS)
libraries = pytest.mark.parametrize("backend", LIBRARIES)


# --- rows -------------------------------------------------------------------


@rows
def test_a_row_has_a_family_and_a_description(name):
    row = LAYERS[name]
    assert row.name == name
    assert row.family in FAMILIES
    assert row.__doc__ and row.__doc__.splitlines()[0].endswith(".")


def test_rows_of_a_family_are_adjacent():
    """The report starts a section wherever the family changes."""
    families = [row.family for row in LAYERS.values()]
    changes = [a != b for a, b in itertools.pairwise(families)]
    assert sum(changes) == len(set(families)) - 1


@rows
def test_a_row_can_be_hashed(name):
    """Compiled programs are cached by the value of the row."""
    assert hash(LAYERS[name]()) == hash(LAYERS[name]())


def test_an_unknown_row_raises():
    with pytest.raises(ValueError, match="layer: got 'dense', expected one"):
        find_layer("dense")


def test_two_rows_with_one_name_raise():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Dense(Linear):
        name = "linear"

    expected = "layer 'linear': got Linear and Dense, expected one row"
    with pytest.raises(ValueError, match=expected):
        by_name([*LAYERS.values(), Dense])


@libraries
def test_arrays_that_the_row_does_not_declare_raise(backend, monkeypatch):
    weight = Linear().variables()["weight"]
    monkeypatch.setattr(Linear, "variables", lambda self: {"kernel": weight})
    expected = (
        r"linear parameters: got \['bias', 'weight'\], expected \['kernel'\]"
    )
    with pytest.raises(ValueError, match=expected):
        find_counterpart(backend, Linear())


# --- public layers ----------------------------------------------------------


def uncovered(backend, layers, without: str = ""):
    """Returns the public layers that no row covers."""
    covered = {
        layer
        for name, constructor in find_constructors(backend).items()
        if name != without
        for layer in constructor.stock
    }
    return [layer for layer in layers if layer not in covered]


@libraries
def test_every_public_layer_is_covered_by_a_row(backend):
    missing = uncovered(backend, find_public_layers(backend))
    assert missing == [], f"layers of {backend} without a row"


def test_the_installed_releases_have_the_expected_number_of_layers():
    """If a release adds a layer, the test above names it."""
    activations = find_constructors("flax")["activation"].stock
    assert len(find_public_layers("equinox")) == 40
    assert len(find_public_layers("flax").keys() - set(activations)) == 29
    assert len(activations) == 25


@libraries
def test_a_new_public_layer_is_detected(backend):
    layers = [*find_public_layers(backend), "Mamba"]
    assert uncovered(backend, layers) == ["Mamba"]


@libraries
def test_a_missing_row_is_detected(backend):
    layers = find_public_layers(backend)
    assert "Linear" in uncovered(backend, layers, without="linear")


@libraries
def test_constructors_name_layers_that_exist(backend):
    layers = find_public_layers(backend).keys()
    for constructor in find_constructors(backend).values():
        assert set(constructor.stock) <= layers, constructor.row


def test_a_row_is_an_abstract_class_until_it_has_a_definition():
    with pytest.raises(TypeError, match="abstract"):
        Layer()  # pyright: ignore[reportAbstractUsage]
