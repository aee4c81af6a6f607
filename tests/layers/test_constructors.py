"""The constructors of both libraries, and how they register themselves."""

import importlib
import inspect
import typing

import pytest

from common.layers.constructors import Column
from common.layers.table import LAYERS
from common.registry import (
    LIBRARIES,
    find_constructors,
    find_counterpart,
    find_public_layers,
)

rows = pytest.mark.parametrize("name", LAYERS)
libraries = pytest.mark.parametrize("backend", LIBRARIES)


# --- the constructors of the two libraries ----------------------------------


@libraries
def test_every_row_has_a_constructor(backend):
    assert find_constructors(backend).keys() == LAYERS.keys()


@rows
@libraries
def test_a_constructor_takes_the_options_of_its_row(name, backend):
    """All are keywords without defaults, so the library chooses none."""
    make = find_constructors(backend)[name].make
    parameters = inspect.signature(make).parameters
    randomness = {"equinox": "key", "flax": "rngs"}[backend]
    assert parameters.keys() == {*LAYERS[name]().options(), randomness}
    for parameter in parameters.values():
        assert parameter.default is inspect.Parameter.empty


@rows
@libraries
def test_a_constructor_is_typed(name, backend):
    make = find_constructors(backend)[name].make
    hints = typing.get_type_hints(inspect.unwrap(make))
    assert hints.keys() == {*inspect.signature(make).parameters, "return"}
    assert typing.Any not in hints.values()


@rows
@libraries
def test_a_constructor_has_a_description_of_one_line(name, backend):
    make = find_constructors(backend)[name].make
    assert make.__doc__ and make.__doc__.endswith(".")
    assert len(make.__doc__.splitlines()) == 1


@rows
@libraries
def test_a_constructor_says_what_it_uses(name, backend):
    constructor = find_constructors(backend)[name]
    if not constructor.stock:
        assert constructor.kind in ("custom", "composition")
    is_named = constructor.kind in ("custom", "composition")
    assert bool(constructor.using) == is_named
    assert bool(constructor.page) == bool(constructor.stock)
    if constructor.stock:
        assert constructor.page.startswith("https://")
        assert constructor.page.endswith(f".{constructor.stock[0]}")


@rows
@libraries
def test_a_custom_layer_exists(name, backend):
    constructor = find_constructors(backend)[name]
    layers = importlib.import_module(f"impl_{backend}.layers")
    if constructor.kind == "custom":
        assert hasattr(layers, constructor.using)


@rows
@libraries
def test_renamed_keywords_are_those_of_the_stock_layer(name, backend):
    constructor = find_constructors(backend)[name]
    if constructor.keywords:
        layer = find_public_layers(backend)[constructor.stock[0]]
        function = layer.__init__ if inspect.isclass(layer) else layer
        keywords = inspect.signature(function).parameters
        assert constructor.renamed.keys() <= keywords.keys()


# --- registration -----------------------------------------------------------


@pytest.fixture
def column():
    def call(layer, *inputs, key):
        return layer(*inputs)

    address = "https://docs/{page}#{name}"
    return Column("impl_planted.table", call=call, address=address)


def make(**options):
    """A constructor."""


def other_make(**options):
    """Another constructor."""


def test_a_constructor_registers_itself(column):
    register = column.constructs("linear", stock=("Linear",), page="linear")
    assert register(make) is make
    constructor = column["linear"]
    assert constructor.make is make
    assert constructor.page == "https://docs/linear#Linear"
    assert list(column) == ["linear"]


def test_a_constructor_can_register_for_two_rows(column):
    column.constructs("gru_cell")(column.constructs("lstm_cell")(make))
    assert column["gru_cell"].make is column["lstm_cell"].make is make


def test_an_unknown_row_raises(column):
    expected = (
        r"constructor in impl_planted\.table: got the row 'dense', "
        "expected one of linear,"
    )
    with pytest.raises(ValueError, match=expected):
        column.constructs("dense")


def test_two_constructors_of_one_row_raise(column):
    column.constructs("linear")(make)
    expected = (
        r"constructor of 'linear': got \S+\.other_make and \S+\.make, "
        "expected one function"
    )
    with pytest.raises(ValueError, match=expected):
        column.constructs("linear")(other_make)


def test_a_reloaded_module_can_register_again(column):
    column.constructs("linear")(make)
    column.constructs("linear", stock=("Linear",))(make)
    assert column["linear"].stock == ("Linear",)


def test_a_row_without_a_constructor_raises(column):
    expected = (
        r"constructor of 'linear' in impl_planted\.table: got none, expected "
        r'a function decorated with @constructs\("linear"\)'
    )
    with pytest.raises(ValueError, match=expected):
        column["linear"]


def test_the_reference_has_no_constructors():
    expected = "library: got 'reference', expected one of 'equinox', 'flax'"
    with pytest.raises(ValueError, match=expected):
        find_counterpart("reference", LAYERS["linear"]())
