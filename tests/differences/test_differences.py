"""Every known difference is still the one that its row describes."""

import dataclasses
import functools

import pytest

from common.differences import (
    FAMILIES,
    NOT_REPORTED,
    RAISES,
    Measurement,
    known_differences,
    measure,
)
from common.differences.report import issue_url

ROWS = [pytest.param(row, id=row.name) for row in known_differences()]

measured = functools.cache(measure)


def expected_to_fail(row):
    # Only the assertion may fail. A demonstration that raises is an error.
    mark = pytest.mark.xfail(
        strict=True,
        raises=AssertionError,
        reason=f"{row.upstream}; delete the row once this test passes",
    )
    return pytest.param(row, id=row.name, marks=mark)


@pytest.mark.parametrize(
    "row", [*map(expected_to_fail, known_differences())], scope="module"
)
def test_library_agrees_with_the_definition(row):
    assert measured(row).gone


@pytest.mark.parametrize("row", ROWS, scope="module")
def test_measured_number_is_the_one_on_record(row):
    measurement = measured(row)
    assert measurement.still_there, (
        f"{row.name}: got {measurement.value}, expected {row.measured} "
        f"within {row.band} times the recorded difference. Check whether the "
        "library has changed, and correct or delete the row."
    )


@pytest.mark.parametrize("row", ROWS, scope="module")
def test_row_is_well_formed(row):
    assert not Measurement(row, row.expected).still_there
    assert not Measurement(row, row.measured).gone
    for text in (row.what, row.ours):
        assert text.endswith(".")
        assert text[0].isupper() or text[0] == "`"
    assert row.quantity and not row.quantity.endswith(".")
    for issue in {row.upstream, *row.related} - {NOT_REPORTED}:
        assert issue_url(issue).startswith("https://github.com/")
    if row.quantity == RAISES:
        assert (row.measured, row.expected) == (1.0, 0.0)


@pytest.mark.parametrize("row", ROWS, scope="module")
def test_library_without_the_difference_is_reported_as_gone(row):
    fixed = dataclasses.replace(row, demonstration=lambda: row.expected)
    measurement = measure(fixed)
    assert measurement.verdict == "gone"
    assert measurement.gone
    assert not measurement.still_there


@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_each_library_has_rows_in_every_family(library):
    families = {row.family for row in known_differences(library)}
    assert families == FAMILIES.keys()
