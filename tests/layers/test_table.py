"""The layer table is whole: every public layer, and every way to make it."""

import importlib
import inspect

import pytest

from common.comparison.layer_report import address
from common.layers import Layer
from common.layers.table import LAYERS, Linear, find_layer, name_of, stem
from common.registry import find_counterpart

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


def column(backend):
    return importlib.import_module(f"impl_{backend}.table")


def public(backend):
    return importlib.import_module(f"impl_{backend}.table.public")


def without_row(backend, layers, rows):
    """The public layers of a library that no row is about."""
    covered = {name for row in rows for name in getattr(row, backend).stock}
    return [name for name in layers if name not in covered]


@libraries
def test_every_public_layer_has_a_row(backend):
    missing = without_row(
        backend, public(backend).public_layers(), LAYERS.values()
    )
    assert missing == [], f"layers of {backend} without a row"


def test_counts_are_those_of_the_installed_releases():
    """A new upstream layer shows up here first, by number, above by name."""
    activations = LAYERS["activation"].flax.stock
    layers = set(public("flax").public_layers()) - set(activations)
    assert len(public("equinox").public_layers()) == 40
    assert len(layers) == 29
    assert len(activations) == 25


@libraries
def test_a_new_public_layer_is_seen(backend):
    layers = [*public(backend).public_layers(), "Mamba"]
    assert without_row(backend, layers, LAYERS.values()) == ["Mamba"]


@libraries
def test_a_lost_row_is_seen(backend):
    rows = [row for name, row in LAYERS.items() if name != "linear"]
    layers = public(backend).public_layers()
    assert "Linear" in without_row(backend, layers, rows)


@libraries
def test_rows_name_layers_that_exist(backend):
    layers = set(public(backend).public_layers())
    for row in LAYERS.values():
        assert set(getattr(row, backend).stock) <= layers, row


@libraries
def test_what_is_no_layer_exists_and_has_no_row(backend):
    module = public(backend)
    rows = {
        it for row in LAYERS.values() for it in getattr(row, backend).stock
    }
    for name in module.NOT_LAYERS:
        assert module.find(name) is not None
        assert name not in rows


@rows
def test_row_is_whole(name):
    row = LAYERS[name]
    assert name == name_of(row)
    assert row.family in FAMILIES
    assert row.__doc__ and row.__doc__.splitlines()[0].endswith(".")
    for backend in LIBRARIES:
        side = getattr(row, backend)
        if not side.stock:
            assert side.serves in ("own", "composition")
        assert bool(side.by) == (side.serves in ("own", "composition"))
        assert bool(side.page) == bool(side.stock)
        assert bool(address(row, backend)) == bool(side.stock)


@rows
@libraries
def test_own_layers_are_where_the_row_says(name, backend):
    side = getattr(LAYERS[name], backend)
    layers = importlib.import_module(f"impl_{backend}.layers")
    if side.serves == "own":
        for one in side.by.split(", "):
            assert hasattr(layers, one), one


def maker(name, backend):
    module = importlib.import_module(
        f"impl_{backend}.table.{stem(LAYERS[name]())}"
    )
    return getattr(module, name)


@rows
@libraries
def test_maker_takes_the_rows_fields(name, backend):
    """All of them, by keyword: no default that a library could choose."""
    parameters = inspect.signature(maker(name, backend)).parameters
    keyword = {"equinox": "key", "flax": "rngs"}[backend]
    names = {*LAYERS[name]().options(), keyword}
    for parameter in parameters.values():
        assert parameter.default is inspect.Parameter.empty
    if any(it.kind is it.VAR_KEYWORD for it in parameters.values()):
        assert {"options", *names} >= set(parameters) >= {"options", keyword}
    else:
        assert set(parameters) == names


@rows
@libraries
def test_keywords_of_the_same_meaning_exist(name, backend):
    row = LAYERS[name]
    names = row.same.keys() if backend == "equinox" else row.same.values()
    known = {
        parameter
        for it in getattr(row, backend).stock
        for parameter in keywords(public(backend).find(it))
    }
    assert not known or set(names) <= known


def keywords(it):
    function = it.__init__ if inspect.isclass(it) else it
    return inspect.signature(function).parameters


@rows
def test_row_can_be_a_key(name):
    """What is compiled for a row is kept by its value."""
    assert hash(LAYERS[name]()) == hash(LAYERS[name]())


def test_unknown_row():
    with pytest.raises(ValueError, match="layer: got 'dense', expected one"):
        find_layer("dense")


@libraries
def test_arrays_that_the_row_does_not_name(backend, monkeypatch):
    weight = Linear().variables()["weight"]
    monkeypatch.setattr(Linear, "variables", lambda self: {"kernel": weight})
    expected = (
        r"linear parameters: got \['bias', 'weight'\], expected \['kernel'\]"
    )
    with pytest.raises(ValueError, match=expected):
        find_counterpart(backend, Linear())


def test_name_of():
    def named(name):
        return name_of(type(name, (Layer,), {}))

    assert named("BatchNorm") == "batch_norm"
    assert named("MLP") == "mlp"
    assert named("LSTMCell") == "lstm_cell"
    assert named("RNN") == "rnn"
    assert named("LoRALinear") == "lora_linear"
