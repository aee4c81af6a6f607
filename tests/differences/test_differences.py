"""Every known difference is still what its row says."""

import dataclasses
import functools
import importlib
import io
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from common import differences
from common.differences import (
    DIFFERENCES,
    FAMILIES,
    NOT_REPORTED,
    RAISES,
    Difference,
    Measurement,
    find_demonstration,
    measure,
    require_complete,
)
from common.differences.report import issue_url, markdown, table, to_json

pytestmark = pytest.mark.usefixtures("forgets")

ROWS = [pytest.param(row, id=row.name) for row in DIFFERENCES]

measured = functools.cache(measure)


@pytest.fixture
def row() -> Difference:
    return DIFFERENCES[0]


@pytest.fixture
def plant(monkeypatch):
    """Puts a function in the place of a row's demonstration."""

    def plant(row, function):
        module = importlib.import_module(row.module)
        function.__module__ = row.module
        monkeypatch.setattr(module, row.function, function, raising=False)

    return plant


def expected_to_fail(row):
    # Only the assertion may fail: a demonstration that raises is an error.
    mark = pytest.mark.xfail(
        strict=True,
        raises=AssertionError,
        reason=f"{row.upstream}. If it passes: delete the row and its code",
    )
    return pytest.param(row, id=row.name, marks=mark)


@pytest.mark.parametrize("row", [*map(expected_to_fail, DIFFERENCES)])
def test_library_agrees_with_the_meaning(row):
    assert measured(row).gone


@pytest.mark.parametrize("row", ROWS)
def test_difference_is_the_one_on_record(row):
    measurement = measured(row)
    assert measurement.still_there, (
        f"{row.name}: got {measurement.value}, expected {row.measured} "
        f"within {row.band} of the difference. Look at it again, and correct "
        "the row or delete it."
    )


@pytest.mark.parametrize("row", ROWS)
def test_row_is_whole(row):
    assert not Measurement(row, row.expected).still_there
    assert not Measurement(row, row.measured).gone
    assert row.what.endswith(".") and row.ours.endswith(".")
    for issue in {row.upstream, *row.related} - {NOT_REPORTED}:
        assert issue_url(issue).startswith("https://github.com/")


RAISING = [row for row in DIFFERENCES if row.quantity == RAISES]


@pytest.mark.parametrize("row", RAISING, ids=lambda row: row.name)
def test_exception_is_shown_as_one(row):
    assert (row.measured, row.expected) == (1.0, 0.0)
    assert " raises " in show([Measurement(row, row.measured)])
    assert " gone " in show([Measurement(row, row.expected)])


def test_rows_and_demonstrations_match():
    require_complete(DIFFERENCES)


def test_row_without_demonstration_fails(row):
    lost = dataclasses.replace(row, name="no-such-thing")
    message = (
        "demonstration of 'no-such-thing': got no function `no_such_thing` "
        "in impl_equinox.differences.state"
    )
    with pytest.raises(ValueError, match=message):
        require_complete([*DIFFERENCES, lost])
    with pytest.raises(ValueError, match=message):
        measure(lost)


def test_row_of_the_wrong_backend_fails(row):
    with pytest.raises(ValueError, match="in impl_flax.differences.state"):
        find_demonstration(dataclasses.replace(row, backend="flax"))


def test_row_of_no_family_fails(row):
    message = f"family of {row.name!r}: got 'no_such', expected a module"
    with pytest.raises(ValueError, match=message):
        find_demonstration(dataclasses.replace(row, family="no_such"))


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_every_family_has_rows_of_both_libraries(backend):
    """So that both have a module for it."""
    families = {row.family for row in DIFFERENCES if row.backend == backend}
    assert families == FAMILIES.keys()


@pytest.mark.parametrize("row", [DIFFERENCES[0], DIFFERENCES[-1]])
def test_demonstration_without_row_fails(row):
    others = [other for other in DIFFERENCES if other != row]
    with pytest.raises(ValueError, match=rf"{row.function}: got none"):
        require_complete(others)


def test_planted_demonstration_without_row_fails(row, plant):
    stray = dataclasses.replace(row, name="stray")
    plant(stray, lambda: 0.0)
    with pytest.raises(ValueError, match="state.stray: got none"):
        require_complete(DIFFERENCES)


def test_two_rows_of_one_name_fail(row):
    with pytest.raises(ValueError, match=f"{row.name}': got 2, expected 1"):
        require_complete([*DIFFERENCES, row])


@pytest.mark.parametrize("row", ROWS)
def test_fixed_library_is_seen(row, plant):
    plant(row, lambda: row.expected)
    measurement = measure(row)
    assert measurement.verdict == "gone"
    assert measurement.gone
    assert not measurement.still_there


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_is_none_is_a_change(row, plant, value):
    plant(row, lambda: value)
    measurement = measure(row)
    assert measurement.verdict == "changed"
    assert json.loads(to_json([measurement]))[0]["value"] is None


def test_half_a_difference_is_a_change(row):
    half = (row.measured + row.expected) / 2
    assert Measurement(row, half).verdict == "changed"


def test_demonstration_that_raises_is_an_error(row, plant):
    def broken():
        raise AttributeError("renamed upstream")

    plant(row, broken)
    with pytest.raises(AttributeError, match="renamed upstream"):
        measure(row)


def test_issue_url():
    url = "https://github.com/google/flax/issues/5576"
    assert issue_url("flax #5576") == url


def show(measurements) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(table(measurements))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_is_readable_at_80_columns():
    text = show([measured(row) for row in DIFFERENCES])
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in DIFFERENCES:
        assert f" {row.name} " in text
        assert row.layer in text
        for word in [*row.what.split(), *row.upstream.split()]:
            assert word in text
    assert "changed" not in text and "gone" not in text


@pytest.mark.parametrize("share, verdict", [(0.0, "gone"), (0.5, "changed")])
def test_table_tells_what_is_no_longer_there(row, share, verdict):
    value = row.expected + share * row.size
    assert verdict in show([Measurement(row, value)])


def test_markdown_shows_the_source():
    text = markdown([measured(row) for row in DIFFERENCES])
    for row in DIFFERENCES:
        assert f"\n({row.name})=\n### {row.name}\n" in text
        opening = f":::{{dropdown}} `{row.module}.{row.function}`\n```python\n"
        assert f"{opening}def {row.function}() -> float:\n" in text
    assert text.count("\n```\n:::\n") == len(DIFFERENCES)
    assert "[flax #5576](https://github.com/google/flax/issues/5576)" in text


def test_json_holds_the_numbers():
    entries = json.loads(to_json([measured(row) for row in DIFFERENCES]))
    assert [entry["name"] for entry in entries] == [
        row.name for row in DIFFERENCES
    ]
    for entry in entries:
        assert math.isfinite(entry["value"])
        assert entry["verdict"] == "still there"
        assert (entry["url"] is None) == (entry["upstream"] == NOT_REPORTED)


def test_measuring_pins_x64_and_puts_it_back(row, plant):
    plant(row, lambda: float(jnp.ones(()).itemsize))
    with jax.enable_x64(True):
        assert measure(row).value == 4.0
        assert jnp.ones(()).itemsize == 8


def test_import_loads_neither_library():
    code = (
        f"import sys, {differences.__name__}; "
        "print({'equinox', 'flax'} & sys.modules.keys())"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"
