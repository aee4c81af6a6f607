"""The command line, through its real entry point."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import optax
import pytest

from common import State, Trainer, build, cli, commands
from common.training.progress import Progress
from tests.comparison import test_comparison


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    """Starts `python -m common` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "common", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(autouse=True)
def compile_cache(monkeypatch):
    """Processes share the tests' compile cache."""
    from tests.conftest import CACHE

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("COLUMNS", "80")


def test_compare(tmp_path):
    done = run(
        *"compare --model deep_mlp --steps 3".split(),
        *("--json", str(tmp_path / "r.json")),
        *("--html", str(tmp_path / "r.html")),
    )
    assert done.returncode == 0, done.stderr
    assert "deep_mlp float64: all agree." in done.stdout
    assert "deep_mlp float32: all agree." in done.stdout
    assert "All agree." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads((tmp_path / "r.json").read_text())
    assert [it["dtype"] for it in found["reports"]] == ["float64", "float32"]
    assert {it["seed"] for it in found["reports"]} == {0}
    assert "</html>" in (tmp_path / "r.html").read_text()


def test_compare_is_the_default_command():
    words = "--model deep_mlp --dtype float32 --steps 1 --batch-norm ema"
    done = run(*words.split())
    assert done.returncode == 0, done.stderr
    assert "deep_mlp float32: all agree." in done.stdout


def test_a_disagreement_exits_with_1(monkeypatch, capsys):
    faulty = test_comparison.respec(test_comparison.FLAX, eps=1e-3)
    monkeypatch.setattr("impl_flax.backend.Backend", faulty)
    words = "compare --model deep_mlp --dtype float64 --steps 1"
    assert cli.main(words.split()) == 1
    said = capsys.readouterr().out
    assert "They disagree." in said and "FAIL" in said
    assert "forward (step 0" in said
    # And at which lines of source.
    assert "literal 1e-05" in said and "literal 0.001" in said


def test_train_and_resume_in_the_other_library(tmp_path):
    file = str(tmp_path / "run.safetensors")
    first = run(
        *"train --backend equinox --model deep_mlp --epochs 2".split(),
        *("--save", file),
    )
    assert first.returncode == 0, first.stderr
    assert "(8 in all)" in first.stdout and "loss" in first.stdout
    second = run(*"train --backend flax --epochs 1 --resume".split(), file)
    assert second.returncode == 0, second.stderr
    assert "deep_mlp in flax: 4 steps (12 in all)" in second.stdout


def resumed(file) -> tuple[State, dict]:
    """What a run left, if it can be taken up."""
    state, meta = State.read(file)
    build(
        meta["spec"],
        backend="reference",
        dtype=meta["dtype"],
        **meta["hyper_parameters"],
    ).load(state)
    return state, meta


SHORT = "train --backend reference --model deep_mlp --epochs 2".split()


def test_a_run_that_diverges_is_saved_and_exits_with_1(
    tmp_path, monkeypatch, capsys
):
    start = commands._start

    def spoiled(options):
        return start(options).with_optimizer(optax.sgd(1e20))

    monkeypatch.setattr(commands, "_start", spoiled)
    file = tmp_path / "run.safetensors"
    assert cli.main([*SHORT, "--save", str(file)]) == 1
    said = capsys.readouterr()
    assert "Wrote" in said.out and "expected finite values" in said.err
    state, _ = State.read(file)
    assert 0 < state.step < 8
    for name, x in state.flat().items():
        assert np.isfinite(x).all(), name


def test_an_interrupted_run_is_saved_and_exits_with_130(
    tmp_path, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    file = tmp_path / "run.safetensors"
    assert cli.main([*SHORT, "--save", str(file)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert resumed(file)[0].step > 0


def test_a_run_is_saved_before_it_is_evaluated(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Trainer, "evaluate", fail)
    file = tmp_path / "run.safetensors"
    with pytest.raises(RuntimeError):
        cli.main([*SHORT, "--save", str(file)])
    assert resumed(file)[0].step == 8


def test_bad_input_leaves_the_old_file(tmp_path):
    file = tmp_path / "run.safetensors"
    file.write_text("kept")
    words = [*SHORT, "--batch-size", "0", "--save", str(file)]
    assert cli.main(words) == 2
    assert file.read_text() == "kept"


def test_a_folder_is_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main([*SHORT, "--save", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == (
        f"error: file: got the folder {str(tmp_path)!r}, expected a file. "
        "Add a name."
    )


def test_a_file_that_does_not_tell_its_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    file = tmp_path / "run.safetensors"
    state = build("deep_mlp", backend="reference").state()
    state.save(file, {"spec": "deep_mlp", "seed": 0})
    words = "train --backend flax --resume".split()
    assert cli.main([*words, str(file)]) == 2
    assert capsys.readouterr().err.strip() == (
        f"error: state file {str(file)!r}: got a header without "
        "hyper_parameters, dtype, expected spec, hyper_parameters, dtype, "
        "seed. Write it with `Trainer.save`."
    )


def test_a_file_of_another_version(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    file = tmp_path / "run.safetensors"
    meta = {"spec": "deep_mlp", "dtype": "float32", "seed": 0}
    state = build("deep_mlp", backend="reference").state()
    state.save(file, meta | {"hyper_parameters": {"width": 3}})
    words = "train --backend flax --resume".split()
    assert cli.main([*words, str(file)]) == 2
    assert "hyper-parameter: got 'width', expected" in capsys.readouterr().err


def test_a_bug_is_not_taken_for_bad_input(monkeypatch):
    def bug(*_):
        return 1 + None  # type: ignore[operator]

    monkeypatch.setitem(cli.COMMANDS, "compare", bug)
    with pytest.raises(TypeError):
        cli.main(["compare"])


def test_differences():
    done = run("differences", "--name", "spectral")
    assert done.returncode == 0, done.stderr
    assert "5576" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_teaches_by_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "python -m common" in text
    assert max(map(len, text.splitlines())) <= 80
    if command:
        _, _, examples = text.partition("examples:")
        assert f"python -m common {command}".rstrip() in examples


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare --model nope", "spec: got 'nope', expected one of"),
        ("compare --dtype half", "dtype: got 'half', expected one of"),
        ("compare --steps 0", "steps: got 0, expected 1 or more"),
        ("compare --html r.txt", "file: got 'r.txt', expected a name that"),
        ("compare --json no/r.json", "file: got 'no/r.json', expected a"),
        ("train --backend torch", "backend: got 'torch', expected one of"),
        ("train --backend flax --resume no", "No such file"),
        ("train --backend flax --batch-size 0", "batch_size: got 0, expected"),
        ("train --backend flax --seed -1", "seed: got -1, expected an int"),
        ("differences --name zzz", "--name: got 'zzz', expected a part of"),
    ],
)
def test_bad_input_exits_with_2(words, message, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(words.split()) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_an_unknown_dialect_is_refused():
    # In a process of its own: beartype would be first to complain here.
    done = run(
        "compare", "--batch-norm", "x", env=os.environ | {"COLUMNS": "500"}
    )
    assert done.returncode == 2
    assert "stateful_mlp batch_norm: got 'x', expected one of" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "digits_cnn"),
        ("dtype", "float64"),
        ("seed", "3"),
        ("batch-norm", "ema"),
    ],
)
def test_resume_refuses_another_run(tmp_path, capsys, option, value):
    build("deep_mlp", backend="flax").save(tmp_path / "r")
    words = f"train --backend flax --resume {tmp_path / 'r'}".split()
    assert cli.main([*words, f"--{option}", value]) == 2
    assert f"--{option}: got" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["comparre"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_console_script_is_installed():
    script = pathlib.Path(sys.executable).parent / "eqx-vs-nnx"
    found = shutil.which(str(script))
    assert found is not None
    done = subprocess.run(
        [found, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for command in cli.COMMANDS:
        assert command in done.stdout
