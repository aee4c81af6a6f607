"""`bench`: what it prints and writes of a measured benchmark."""

import json
import pathlib

import pytest

from common import cli
from common.benchmark import scaling, suite
from common.benchmark.report import Benchmark
from tests.benchmark.test_scaling import make_cost, make_scaling

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


def test_options_of_the_model_reach_the_measurement(
    tmp_path, monkeypatch, capsys
):
    asked = {}
    found = make_scaling(make_cost(), make_cost("Flax"))

    def measured(model, variants, **options):
        asked.update(options, model=model, variants=variants)
        return found

    monkeypatch.setattr(scaling, "run", measured)
    file = tmp_path / "bench.json"
    words = "bench --model deep_mlp --set depth=3 --set depth=3 scan=True "
    words += "--set batch_norm=torch --devices 1,2 --shard replicated,fsdp "
    words += f"--batch-size 8 --quick --json {file}"
    assert cli.main(words.split()) == 0
    assert asked.pop("command")
    assert asked == {
        "model": "deep_mlp",
        "variants": [
            {"depth": 3},
            {"depth": 3, "scan": True},
            {"batch_norm": "torch"},
        ],
        "devices": [1, 2],
        "shards": ["replicated", "fsdp"],
        "batch_size": 8,
        "quick": True,
    }
    values = json.loads(file.read_text())
    assert scaling.Scaling.from_json(values) == found
    assert "4 devices, fsdp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices 1,two", "--devices: got '1,two', expected positive"),
        ("--devices 0", "--devices: got '0', expected positive"),
        ("--set depth", "--set: got 'depth', expected NAME=VALUE"),
        ("--set =3", "--set: got '=3', expected NAME=VALUE"),
        ("--shard both", "shard: got 'both', expected"),
        ("--batch-size 0", "batch size: got 0, expected at least 1"),
    ],
)
def test_bad_options_are_refused(words, message, capsys):
    assert cli.main(["bench", *words.split()]) == 2
    assert message in capsys.readouterr().err
