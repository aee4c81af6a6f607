"""The report of the layer table: which rows, and what it says about them."""

import io
import json
import math

import pytest
from rich.console import Console

from common.comparison import layer_report as report
from common.comparison.layer_judge import Finding
from common.layers.table import LAYERS, Linear


def measurement(error, *, backend="flax", dtype="float32"):
    findings = [Finding("output", "train", "", error, tolerance=1e-6)]
    return report.Measurement(Linear, backend, dtype, findings)


def printed(measured):
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(report.table(measured))
    return capture.get()


@pytest.mark.parametrize(
    ("part", "row"),
    [
        ("lora_linear", "lora_linear"),
        ("LORA", "lora"),
        ("normalization", "batch_norm"),
        ("AdaptiveMaxPool3d", "adaptive_max_pool"),
        ("OptimizedLSTM", "optimized_lstm_cell"),
        ("hard_swish", "activation"),
    ],
)
def test_rows_are_found_by_name_family_and_public_layer(part, row):
    assert row in report.find_rows(part)


def test_an_unknown_name_finds_no_rows():
    assert report.find_rows("mamba") == []


def test_an_empty_name_finds_all_rows():
    assert report.find_rows("") == list(LAYERS)


def test_an_error_within_the_tolerance_is_not_a_mismatch():
    found = measurement(1e-7)
    assert found.ok and report.problems(found) == []
    assert "!" not in printed([found])


@pytest.mark.parametrize("error", [1e-3, math.inf, math.nan])
def test_a_mismatch_is_reported(error):
    found = measurement(error)
    assert not found.ok
    (problem,) = report.problems(found)
    assert problem.startswith("linear in Flax, float32: output in train: got")
    assert "!" in printed([found])


def test_a_known_difference_is_not_a_mismatch(monkeypatch):
    monkeypatch.setattr(report, "excused", lambda *cell: {"output"})
    found = measurement(1e-3)
    assert found.ok and report.problems(found) == []
    assert "*" in printed([found])


def test_errors_are_formatted_in_ulps_of_narrow_dtypes():
    assert report.number(0.0, "float32") == "0"
    assert report.number(3e-13, "float64") == "3e-13"
    assert report.number(2**-22, "float32") == "2.0u"
    assert report.number(2**-6, "bfloat16") == "2.0u"
    assert report.number(math.inf, "float64") == "not finite"


def test_json_describes_rows_constructors_and_findings():
    measured = [measurement(math.inf), measurement(0.0, backend="equinox")]
    (row,) = json.loads(report.to_json(measured))["layers"]
    assert row["name"] == "linear"
    assert row["description"] == "Computes `x @ weight.T + bias`."
    assert row["flax"]["stock"] == ["Linear"]
    assert row["flax"]["kind"] == "stock"
    assert row["flax"]["page"].startswith("https://flax.readthedocs.io/")
    first, second = row["measured"]
    assert first["findings"][0]["error"] == "inf" and not first["ok"]
    assert second["findings"][0]["error"] == 0.0 and second["ok"]
