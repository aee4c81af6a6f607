"""`differences`, through its real entry point."""

import json

import pytest

from common import cli
from tests.commands.processes import run_script


@pytest.mark.exhaustive
def test_differences_fit_the_terminal():
    done = run_script("differences", "--name", "spectral")
    assert done.returncode == 0, done.stderr
    assert "5576" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_differences_writes_json(tmp_path, capsys):
    file = tmp_path / "d.json"
    words = ["differences", "--name", "spectral-norm-eval"]
    assert cli.main([*words, "--json", str(file)]) == 0
    assert f"Wrote {file}." in capsys.readouterr().out
    assert "spectral-norm-eval" in json.dumps(json.loads(file.read_text()))


def test_a_name_that_no_row_has(capsys):
    assert cli.main(["differences", "--name", "zzz"]) == 2
    message = capsys.readouterr().err
    assert "--name: got 'zzz', expected text that one of" in message
    assert "Leave --name out to measure all." in message
