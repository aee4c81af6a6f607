"""The report of the known differences, filled with the recorded numbers."""

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from common.differences import (
    NOT_REPORTED,
    RAISES,
    Excuse,
    Measurement,
    known_differences,
)
from common.differences.report import (
    issue_url,
    markdown,
    sentence,
    summary,
    table,
    to_json,
)

RECORDED = [Measurement(row, row.measured) for row in known_differences()]


def show(measurements) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(table(measurements))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_fits_80_columns():
    text = show(RECORDED)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for measurement in RECORDED:
        row = measurement.row
        assert f" {row.name} " in text
        for word in [
            *row.layer.split(),
            *row.what.split(),
            *sentence(measurement).split(),
        ]:
            assert word in text
        if row.upstream != NOT_REPORTED:
            assert f"issue: {row.upstream}" in text
    assert "changed" not in text and "gone" not in text


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.0, "gone"), (0.5, "changed")]
)
def test_table_reports_a_difference_that_is_not_there(row, share, verdict):
    value = row.expected + share * row.size
    assert verdict in show([Measurement(row, value)])


@pytest.mark.parametrize(
    "row",
    [row for row in known_differences() if row.quantity == RAISES],
    ids=lambda row: row.name,
)
def test_exception_is_not_reported_as_a_number(row):
    present, absent = Measurement(row, 1.0), Measurement(row, 0.0)
    assert "The call raises an error." in show([present])
    assert "The call runs. (gone)" in " ".join(show([absent]).split())
    assert "*The call raises an error.*" in markdown([present])
    assert "*The call runs. (gone)*" in markdown([absent])


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        ("mean of it", 4.0, "The mean of it is 4 instead of 0."),
        ("an output", 4.0, "An output is 4 instead of 0."),
        ("size, in bytes", 4.0, "The size is 4 bytes instead of 0."),
        ("size, in bytes", 1.0, "The size is 1 byte instead of 0."),
        ("size, in bytes", 0.0, "The size is 0 bytes."),
    ],
)
def test_a_number_is_a_sentence_with_its_unit(row, quantity, value, text):
    planted = dataclasses.replace(row, quantity=quantity, expected=0.0)
    assert sentence(Measurement(planted, value)) == text


def test_the_summary_names_what_is_not_there_any_more():
    row = RECORDED[0].row
    gone = Measurement(row, row.expected)
    assert summary(RECORDED[:1]) == "1 known difference is still there."
    assert summary(RECORDED[:2]) == "2 known differences are still there."
    assert summary([gone, RECORDED[1]]) == (
        f"1 of 2 known differences: {row.name} (gone)."
    )


def test_markdown_shows_the_source_without_the_decorator():
    text = markdown(RECORDED)
    for measurement in RECORDED:
        row = measurement.row
        function = row.name.replace("-", "_")
        assert f"\n:name: {row.name}\n" in text
        opening = f':caption: "{row.source}"\n\ndef {function}() -> float:\n'
        assert opening in text
        for word in row.what.split():
            assert word in text
    assert text.count("\n```\n::::\n") == len(RECORDED)
    assert "known_difference" not in text
    assert "[flax #5576](https://github.com/google/flax/issues/5576)" in text


def test_markdown_states_the_number_and_the_formula(row):
    text = markdown([Measurement(row, row.measured)])
    assert f"*The {row.quantity} is 4.76 instead of 0.*\n" in text
    assert f"4.763, from the formula `{row.origin}`" in text
    for fields in (
        {"origin": "measured"},
        {"origin": "1", "measured": 1.0},
    ):
        plain = dataclasses.replace(row, **fields)
        assert "formula" not in markdown([Measurement(plain, 1.0)])


def test_json_holds_the_rows_and_the_numbers():
    entries = json.loads(to_json(RECORDED))
    assert [entry["name"] for entry in entries] == [
        measurement.row.name for measurement in RECORDED
    ]
    for entry, measurement in zip(entries, RECORDED, strict=True):
        assert entry["value"] == measurement.value
        assert entry["verdict"] == "still there"
        assert entry["demonstration"] == measurement.row.source
        assert (entry["url"] is None) == (entry["upstream"] == NOT_REPORTED)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_a_string_for_a_number_that_is_not_finite(row, value):
    (entry,) = json.loads(to_json([Measurement(row, value)]))
    assert entry["value"] == str(value)
    assert entry["verdict"] == "changed"


def test_json_holds_the_excuses(row):
    excuse = Excuse("linear", ("float32",), ("output",), {"use_bias": True})
    planted = dataclasses.replace(row, excuses=(excuse,))
    (entry,) = json.loads(to_json([Measurement(planted, row.measured)]))
    assert entry["excuses"] == [
        {
            "layer": "linear",
            "dtypes": ["float32"],
            "quantities": ["output"],
            "options": {"use_bias": True},
        }
    ]


def test_issue_url():
    url = "https://github.com/google/flax/issues/5576"
    assert issue_url("flax #5576") == url
