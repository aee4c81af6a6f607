"""`compare`, through its real entry point and in this process."""

import json

import pytest

from common import cli
from tests.commands.processes import environment, run_module, run_script
from tests.comparison import faults
from tests.conftest import exhaustive_but


@pytest.mark.parametrize("columns", exhaustive_but([80, 120], 80))
def test_compare_is_the_default_command_and_writes_both_files(
    columns, tmp_path
):
    done = run_script(
        *"--model deep_mlp --steps 3 --batch-norm ema".split(),
        *("--json", str(tmp_path / "r.json")),
        *("--html", str(tmp_path / "r.html")),
        env=environment(columns=columns),
    )
    assert done.returncode == 0, done.stderr
    assert "deep_mlp float64: all agree." in done.stdout
    assert "deep_mlp float32: all agree." in done.stdout
    assert "All 2 comparisons agree." in done.stdout
    stored = json.loads((tmp_path / "r.json").read_text())
    dtypes = [report["dtype"] for report in stored["reports"]]
    assert dtypes == ["float64", "float32"]
    assert {report["seed"] for report in stored["reports"]} == {0}
    assert "</html>" in (tmp_path / "r.html").read_text()
    lines = done.stdout.splitlines()
    assert max(len(x) for x in lines if not x.startswith("Wrote")) <= columns


def test_all_backends_compute_a_batch_in_parts(capsys):
    words = "compare --model deep_mlp --dtype float64 --steps 2 --accumulate 4"
    assert cli.main(words.split()) == 0
    assert "all agree" in capsys.readouterr().out
    assert cli.main(["compare", "--accumulate", "0"]) == 2
    assert "accumulate: got 0, expected" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_one_report_has_no_summary():
    done = run_module(*"--model deep_mlp --dtype float32 --steps 1".split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agree") == 1
    assert "deep_mlp float32: all agree." in done.stdout


@pytest.mark.parametrize(
    ("dtypes", "summary"),
    [
        ("float64", ""),
        pytest.param(
            "float64 float32",
            "2 of 2 comparisons failed.",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_mismatch_exits_with_1(monkeypatch, capsys, dtypes, summary):
    faulty = faults.respec(faults.FLAX, eps=1e-3)
    monkeypatch.setattr("impl_flax.backend.Backend", faulty)
    words = f"compare --model deep_mlp --dtype {dtypes} --steps 1"
    assert cli.main(words.split()) == 1
    printed = capsys.readouterr().out
    assert "FAIL" in printed and "forward (step 0" in printed
    assert summary in printed and ("failed." in printed) == bool(summary)
    # And the source lines at which the two diverge.
    assert "literal 1e-05" in printed and "literal 0.001" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model nope", "spec: got 'nope', expected one of"),
        ("--dtype half", "dtype: got 'half', expected one of"),
        ("--steps 0", "steps: got 0, expected 1 or more"),
        ("--html r.txt", "file: got 'r.txt', expected a name that"),
        ("--json no/r.json", "file: got 'no/r.json', expected a"),
    ],
)
def test_bad_input_exits_with_2(words, message, capsys):
    assert cli.main(["compare", *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_an_unknown_batch_norm_is_refused():
    # In a process of its own: the tests' type checks would refuse it first.
    done = run_script("compare", "--batch-norm", "x")
    assert done.returncode == 2
    assert "stateful_mlp batch_norm: got 'x', expected one of" in done.stderr
