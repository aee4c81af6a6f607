"""`layers`: its selection of rows, its table and its exit status."""

import json

import pytest

from common import cli
from common.comparison import layer_report
from tests.commands.processes import environment, run_script
from tests.conftest import exhaustive_but


@pytest.mark.parametrize("columns", exhaustive_but([80, 120], 80))
def test_layers_fit_the_terminal(columns):
    words = "layers dropout --dtype float32"
    done = run_script(*words.split(), env=environment(columns=columns))
    assert done.returncode == 0, done.stderr
    assert "eqx.nn.Dropout" in done.stdout or "layers.Dropout" in done.stdout
    assert "rng_collection='dropout'" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= columns


def test_layers_writes_json(tmp_path, capsys):
    file = tmp_path / "layers.json"
    words = "layers --name dropout --dtype float64 --json".split()
    assert cli.main([*words, str(file)]) == 0
    assert f"Wrote {file}." in capsys.readouterr().out
    rows = json.loads(file.read_text())["layers"]
    assert [row["name"] for row in rows] == ["dropout"]
    (only, *_) = rows[0]["defaults"]["only_equinox"]
    assert only["argument"] == "inference" and only["default"] == "False"


def test_a_layer_that_fails_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr(layer_report.Measurement, "ok", False)
    words = "layers --name dropout --dtype float64"
    assert cli.main(words.split()) == 1
    assert "!" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("zzz", "layer: got 'zzz', expected one of"),
        ("--name zzz", "--name: got 'zzz', expected text that one of"),
        ("--dtype half", "--dtype: got 'half', expected one of"),
        ("--json r.txt", "expected a name that ends in '.json'. Write 'r.j"),
    ],
)
def test_bad_input_exits_with_2(words, message, capsys):
    assert cli.main(["layers", *words.split()]) == 2
    assert message in capsys.readouterr().err
