"""A report as a table, a page and JSON."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import rich.console

from common import environment
from common.comparison import rows as rows_module
from common.comparison import text as report_text
from common.comparison.page import plot_losses
from common.comparison.report import Report
from common.comparison.rows import Place, Row

PAIRS = [("equinox", "reference"), ("flax", "reference"), ("equinox", "flax")]
LOSSES = [1.5, 0.9, 0.4]


def make(dtype: str = "float32", *, fails: bool = False) -> Report:
    leaf = "optimizer.0.mu.spectral_linear.weight"
    rows = []
    for left, right in PAIRS:
        rows += [
            Row("state", left, right, Place(0, leaf, 0.0), 0.0, None),
            Row("stale", left, right, Place(1, "", 0.0), 0.0, None),
        ]
        worst = Place(3, leaf, 1.4e-2)
        first = Place(2, leaf, 1.1e-3) if fails else None
        rows.append(Row("moments", left, right, worst, 2.5e-2, first))
    order = list(rows_module.QUANTITIES)
    rows.sort(key=lambda row: order.index(row.quantity))
    names = ("reference", "equinox", "flax")
    return Report(
        spec="stateful_mlp",
        hyper_parameters={"batch_norm": "ema"},
        dtype=dtype,
        steps=3,
        seed=0,
        pairs=PAIRS,
        rows=rows,
        losses={name: LOSSES for name in names},
    )


def shown(report: Report, width: int) -> str:
    console = rich.console.Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(*report_text.render(report), sep="\n")
    return capture.get()


def test_repr_is_the_verdict():
    assert (
        repr(make()) == "<Report of 9 rows: stateful_mlp float32: all agree.>"
    )
    text = repr(make(fails=True))
    assert "DISAGREE" in text and len(text) < 250


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_table_fits_the_terminal(dtype, width):
    text = shown(make(dtype), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for name in ("state", "stale", "moments", "equinox", "reference"):
        assert name in text
    assert text.count("ok") == 9
    assert "all agree" in text


def test_a_cell_shows_error_ulps_tolerance_and_verdict():
    row = make().rows[-1]
    words = report_text.cell(row, "float32").plain.split()
    assert words == ["1.4e-2", "1.2e5u", "≤2.1e5u", "ok"]
    words = report_text.cell(row, "float64").plain.split()
    assert words == ["1.4e-2", "≤2.5e-2", "ok"]


def test_a_mismatch_is_shown():
    report = make(fails=True)
    assert not report.ok
    text = str(report)
    assert "FAIL" in text and "DISAGREE" in text
    found = report.first_divergence
    assert found is not None
    assert found.step == 2 and found.quantity == "moments"
    assert str(found) in report.verdict


def test_json_has_every_field(tmp_path):
    report = make(fails=True)
    report.save(tmp_path / "r.json")
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["environment"]["versions"].keys() >= {"jax", "flax"}
    (found,) = values["reports"]
    assert found["ok"] is False
    assert found["losses"]["flax"] == LOSSES
    assert len(found["rows"]) == len(report.rows)
    assert found["rows"][-1]["worst"]["error"] == 1.4e-2
    assert found["first_divergence"]["step"] == 2


def test_json_has_infinities_as_strings(tmp_path):
    row = make().rows[0]
    worst = row.worst._replace(error=np.inf)
    row = dataclasses.replace(row, worst=worst, first=worst)
    report = dataclasses.replace(make(), rows=[row])
    report.save(tmp_path / "r.json")

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "r.json").read_text()
    json.loads(text, parse_constant=refuse)


def test_page_is_self_contained(tmp_path):
    make().save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert not re.search(r"<script|<link|https?:|src=|@import", page)
    assert page.count("<polyline") == 3
    for text in ("stateful_mlp", "all agree", "jax ", "batch_norm=ema"):
        assert text in page


def test_page_escapes_what_it_shows(tmp_path):
    report = dataclasses.replace(make(), hyper_parameters={"name": "<b>&</b>"})
    report.save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page and "<b>&" not in page


def test_page_plots_only_finite_losses(tmp_path):
    losses = {"flax": [1.0, np.nan, np.inf], "equinox": [np.nan]}
    dataclasses.replace(make(), losses=losses).save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "nan" not in re.sub(r"<text.*?</text>", "", page)


def test_page_plots_losses_that_are_not_positive():
    plot = plot_losses({"flax": [1.0, -0.5, 0.0]})
    (points,) = re.findall(r'<polyline [^>]*points="([^"]*)"', plot)
    assert len(points.split()) == 3


def test_other_file_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="report file: got .*expected a name"):
        make().save(tmp_path / "r.txt")
    assert not list(tmp_path.iterdir())


def test_command_can_be_run_again(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["/x/common/__main__.py", "--html", "a b"]
    )
    assert environment.command() == "python -m common --html 'a b'"
    monkeypatch.setattr(sys, "argv", ["/bin/eqx-vs-nnx", "train"])
    assert environment.command() == "eqx-vs-nnx train"
