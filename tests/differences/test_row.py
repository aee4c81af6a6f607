"""`Family.known_difference` and the objects that it creates."""

import dataclasses
from typing import Any

import pytest

from common.differences import Family, KnownDifference

FIELDS: dict[str, Any] = {
    "name": "layer-fault",
    "layer": "Layer",
    "quantity": "fraction of outputs that are wrong",
    "what": "The layer returns zeros.",
    "measured": 1.0,
    "ours": "Our layer does not.",
}


def layer_fault() -> float:
    return 1.0


@pytest.fixture
def family() -> Family:
    return Family("flax", "linear")


def test_decorator_returns_the_row_and_adds_it_to_the_family(family):
    row = family.known_difference(**FIELDS)(layer_fault)
    assert isinstance(row, KnownDifference)
    assert family.rows == [row]
    assert (row.backend, row.family) == ("flax", "linear")
    assert row.demonstration is layer_fault
    assert row.source == f"{__name__}.layer_fault"
    values = dataclasses.asdict(row)
    assert {name: values[name] for name in FIELDS} == FIELDS


def test_size_is_the_recorded_minus_the_expected_number(family):
    declare = family.known_difference(**FIELDS, expected=3.5)
    assert declare(layer_fault).size == 2.5


def test_rows_keep_the_order_of_their_definition(family):
    def another_fault() -> float:
        return 1.0

    family.known_difference(**FIELDS)(layer_fault)
    family.known_difference(**FIELDS | {"name": "another-fault"})(
        another_fault
    )
    names = [row.name for row in family.rows]
    assert names == ["layer-fault", "another-fault"]


def test_duplicate_name_is_an_error(family):
    family.known_difference(**FIELDS)(layer_fault)
    message = "known difference 'layer-fault' in .*: got a second definition"
    with pytest.raises(ValueError, match=message):
        family.known_difference(**FIELDS)(layer_fault)
    assert len(family.rows) == 1


@pytest.mark.parametrize("field", FIELDS)
def test_missing_field_is_an_error(family, field):
    fields = {name: FIELDS[name] for name in FIELDS if name != field}
    with pytest.raises(TypeError, match=f"missing .* argument: '{field}'"):
        family.known_difference(**fields)


def test_unknown_field_is_an_error(family):
    with pytest.raises(TypeError, match="unexpected keyword argument 'unit'"):
        family.known_difference(**FIELDS, unit="bytes")


def test_demonstration_of_another_name_is_an_error(family):
    declare = family.known_difference(**FIELDS | {"name": "other-fault"})
    message = "got a function named 'layer_fault', expected 'other_fault'"
    with pytest.raises(ValueError, match=message):
        declare(layer_fault)
    assert not family.rows


def test_unknown_family_is_an_error():
    message = (
        "family: got 'liner', expected one of .* Correct the name, or add"
    )
    with pytest.raises(ValueError, match=message):
        Family("flax", "liner")


def test_row_is_immutable(family):
    row: Any = family.known_difference(**FIELDS)(layer_fault)
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.measured = 2.0
