"""Collecting the known differences, and the mismatches that they excuse."""

import dataclasses
import importlib
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from common import differences
from common.comparison import layer_judge as judge
from common.comparison import layer_report
from common.differences import (
    FAMILIES,
    Excuse,
    Family,
    catalogue,
    excused,
    known_differences,
)
from common.layers.table import LAYERS
from common.registry import load_demonstrations

LAYER_NORM: Any = LAYERS["layer_norm"]
DROPOUT: Any = LAYERS["dropout"]


def fault() -> float:
    return 1.0


def module(family: Any, name: str = "planted") -> ModuleType:
    """Returns a module that declares a family."""
    planted = ModuleType(name)
    planted.__dict__["family"] = family
    return planted


def family_with_fault(library: Any, name: str) -> Family:
    family = Family(library, name)
    family.known_difference(
        name="fault",
        layer="Layer",
        quantity="fraction of outputs that are wrong",
        what="The layer returns zeros.",
        measured=1.0,
        ours="Our layer does not.",
    )(fault)
    return family


def test_rows_are_ordered_by_family_and_then_by_library():
    rows = known_differences()
    families, libraries = list(FAMILIES), ["equinox", "flax"]
    places = [
        (families.index(row.family), libraries.index(row.backend))
        for row in rows
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_every_decorated_function_is_in_the_catalogue(library):
    declared = [
        row
        for declaring in load_demonstrations(library)
        for row in vars(declaring).values()
        if isinstance(row, differences.KnownDifference)
    ]
    assert declared
    assert set(declared) == set(known_differences(library))


def test_rows_of_one_library_are_part_of_the_catalogue():
    both = known_differences()
    for library in ("equinox", "flax"):
        expected = tuple(row for row in both if row.backend == library)
        assert known_differences(library) == expected


@pytest.mark.parametrize("row", known_differences(), ids=lambda row: row.name)
def test_demonstration_is_found_where_its_source_says(row):
    name, _, function = row.source.rpartition(".")
    assert getattr(importlib.import_module(name), function) is row


@pytest.mark.parametrize("libraries", [("flax", "flax"), ("equinox", "flax")])
def test_name_in_two_modules_is_an_error(libraries):
    first, second = (
        {library: [module(family_with_fault(library, family))]}
        for library, family in zip(
            libraries, ("linear", "dropout"), strict=True
        )
    )
    modules = {
        library: [*first.get(library, []), *second.get(library, [])]
        for library in libraries
    }
    source = f"{__name__}.fault"
    message = f"'fault': got {source} and {source}, expected a single one"
    with pytest.raises(ValueError, match=message):
        catalogue.collect(modules)
    assert len(catalogue.collect(first)) == 1


@pytest.mark.parametrize("family", [None, "linear"])
def test_module_without_a_family_is_an_error(family):
    message = f"planted.family: got {family!r}, expected a `Family`"
    with pytest.raises(ValueError, match=message):
        catalogue.collect({"flax": [module(family)]})


def test_family_of_the_other_library_is_an_error():
    planted = module(family_with_fault("flax", "linear"))
    message = "planted.family: got a family of 'flax', expected .* 'equinox'"
    with pytest.raises(ValueError, match=message):
        catalogue.collect({"equinox": [planted]})


@pytest.fixture
def plant_excuse(monkeypatch, row):
    """Puts one row with an excuse in the place of the catalogue."""

    def plant(excuse: Excuse) -> None:
        planted = dataclasses.replace(row, excuses=(excuse,))

        def rows(library: str | None = None):
            return (planted,) if library in (None, planted.backend) else ()

        monkeypatch.setattr(catalogue, "known_differences", rows)

    return plant


def test_excuse_applies_to_its_layer_library_and_dtype_only(plant_excuse):
    plant_excuse(Excuse("layer_norm", ("float32",), ("output",), {}))
    layer = LAYER_NORM()
    assert excused(layer, "equinox", "float32") == {"output"}
    assert not excused(layer, "flax", "float32")
    assert not excused(layer, "equinox", "float64")
    assert not excused(DROPOUT(), "equinox", "float32")


def test_excuse_applies_to_its_options_only(plant_excuse):
    options = {"use_bias": False}
    plant_excuse(
        Excuse("layer_norm", ("float32",), ("output", "gradients"), options)
    )
    layer = LAYER_NORM(use_bias=False)
    assert excused(layer, "equinox", "float32") == {"output", "gradients"}
    assert not excused(LAYER_NORM(use_bias=True), "equinox", "float32")


def test_excused_mismatch_passes_the_layer_matrix(plant_excuse):
    findings = [
        judge.Finding("output", "train", "", 1.0, 0.0),
        judge.Finding("gradients", "train", "weight", 0.0, 0.0),
    ]
    measurement = layer_report.Measurement(
        LAYER_NORM, "equinox", "float32", findings
    )
    assert not measurement.ok
    plant_excuse(Excuse("layer_norm", ("float32",), ("output",), {}))
    assert measurement.ok
    plant_excuse(Excuse("layer_norm", ("float32",), ("gradients",), {}))
    assert not measurement.ok


def test_import_loads_neither_library():
    code = (
        f"import sys, {differences.__name__}; "
        "print({'equinox', 'flax'} & sys.modules.keys())"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"


def test_rows_of_one_library_load_only_that_library():
    code = (
        "import sys; from common.differences import known_differences; "
        "known_differences('equinox'); "
        "print({'equinox', 'flax'} & sys.modules.keys())"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True)
    assert out.stdout == "{'equinox'}\n"
