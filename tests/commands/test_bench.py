"""`bench`: what it prints and writes of a measured benchmark."""

import json
import pathlib

from common import cli
from common.benchmark import suite
from common.benchmark.report import Benchmark

STORED = pathlib.Path(__file__).parents[2] / "docs" / "data" / "bench.json"


def test_bench_prints_and_writes_what_was_measured(
    tmp_path, monkeypatch, capsys
):
    """The measuring itself has its own tests in `tests/benchmark`."""
    values = json.loads(STORED.read_text())
    asked = {}

    def measured(**options):
        asked.update(options)
        return Benchmark.from_json(values)

    monkeypatch.setattr(suite, "run", measured)
    file = tmp_path / "bench.json"
    assert cli.main(["bench", "--quick", "--json", str(file)]) == 0
    assert asked["quick"] is True and asked["command"]
    assert json.loads(file.read_text()) == values
    printed = capsys.readouterr().out
    assert "plain JAX" in printed and f"Wrote {file}." in printed


def test_a_file_of_another_kind_is_refused_before_measuring(capsys):
    assert cli.main(["bench", "--json", "bench.txt"]) == 2
    assert "expected a name that ends in '.json'" in capsys.readouterr().err
