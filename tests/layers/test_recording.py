"""How the layers of a library are constructed and called is recorded."""

import inspect
import types

import pytest

from common.layers.recording import Group, Use, parameters, recorded


class Inner:
    def __init__(self, size, scale=1.0):
        self.size, self.scale = size, scale

    def __call__(self, x, *, twice=False):
        return self.scale * x * (1 + twice)


class Outer(Inner):
    def __init__(self, size):
        super().__init__(size, 2.0)
        self.inner = Inner(size)

    def __call__(self, x, *more, **options):
        return self.inner(x)


def shift(x, by=0):
    return x + by


MODULE = types.ModuleType("library")
GROUPS = {"lib": Group(MODULE, {"Inner": Inner, "Outer": Outer, "f": shift})}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.setattr(MODULE, "f", shift, raising=False)
    return MODULE


def test_what_is_passed_is_recorded_by_its_name():
    with recorded(GROUPS) as uses:
        layer = Inner(3, scale=4.0)
        assert layer(2) == 8 and layer(2, twice=True) == 16
    assert uses == [
        Use("lib", "Inner", "__init__", {"size": 3, "scale": 4.0}, layer),
        Use("lib", "Inner", "__call__", {"x": 2}, layer),
        Use("lib", "Inner", "__call__", {"x": 2, "twice": True}, layer),
    ]


def test_layers_inside_of_a_layer_are_not_recorded():
    with recorded(GROUPS) as uses:
        layer = Outer(3)
        layer(1)
    assert [(use.layer, use.method) for use in uses] == [
        ("Outer", "__init__"),
        ("Outer", "__call__"),
    ]


def test_what_a_transparent_layer_calls_is_recorded():
    group = GROUPS["lib"]._replace(transparent=frozenset({"Outer"}))
    with recorded({"lib": group}) as uses:
        Outer(3)(1)
    assert [use.layer for use in uses] == ["Outer"] + ["Inner"] * 2 + [
        "Outer",
        "Inner",
    ]


def test_an_error_in_a_layer_does_not_end_the_recording():
    with recorded(GROUPS) as uses:
        layer = Inner(3)
        with pytest.raises(TypeError):
            layer({})
        layer(1)
    assert len(uses) == 3


def test_functions_are_recorded_where_they_are_looked_up(library):
    with recorded(GROUPS) as uses:
        assert library.f(1, by=2) == 3
    assert uses == [Use("lib", "f", "__call__", {"x": 1, "by": 2})]


def test_nothing_is_left_behind(library):
    before = dict(vars(Inner)), dict(vars(Outer)), library.f
    with recorded(GROUPS):
        assert Inner.__init__ is not before[0]["__init__"]
    assert (dict(vars(Inner)), dict(vars(Outer)), library.f) == before


def test_parameters_are_those_without_self():
    assert list(parameters(Inner, "__init__")) == ["size", "scale"]
    assert list(parameters(shift, "__call__")) == ["x", "by"]
    assert parameters(shift, "__init__") == {}
    empty = inspect.Parameter.empty
    assert parameters(Inner, "__init__")["size"].default is empty
