"""`train`: saving, resuming in the other library, and runs that end early."""

import numpy as np
import optax
import pytest

from common import State, Trainer, build, cli
from common.commands import train
from common.training.progress import Progress
from tests.commands.processes import run_script

SHORT = "train --backend reference --model deep_mlp --epochs 2".split()


def test_train_and_resume_in_the_other_library(tmp_path):
    file = str(tmp_path / "run.safetensors")
    first = run_script(
        *"train --backend equinox --model deep_mlp --epochs 2".split(),
        *("--save", file),
    )
    assert first.returncode == 0, first.stderr
    assert "(8 in total)" in first.stdout and "loss" in first.stdout
    words = "train --backend flax --epochs 1 --batch-size 256 --resume"
    second = run_script(*words.split(), file)
    assert second.returncode == 0, second.stderr
    assert "deep_mlp in flax: 1 step (9 in total)" in second.stdout
    assert max(map(len, second.stdout.splitlines())) <= 80


def resumed(file) -> tuple[State, dict]:
    """Returns the State and header of a file from which a run continues."""
    state, header = State.read(file)
    build(
        header["spec"],
        backend="reference",
        dtype=header["dtype"],
        **header["hyper_parameters"],
    ).load(state)
    return state, header


def test_a_run_that_diverges_is_saved_and_exits_with_1(
    tmp_path, monkeypatch, capsys
):
    start = train._start

    def spoiled(options):
        return start(options).with_optimizer(optax.sgd(1e20))

    monkeypatch.setattr(train, "_start", spoiled)
    file = tmp_path / "run.safetensors"
    assert cli.main([*SHORT, "--save", str(file)]) == 1
    printed = capsys.readouterr()
    assert "Wrote" in printed.out
    assert "expected finite values" in printed.err
    state, _ = State.read(file)
    assert 0 < state.step < 8
    for name, x in state.flat().items():
        assert np.isfinite(x).all(), name


def test_an_interrupted_run_is_saved(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    file = tmp_path / "run.safetensors"
    assert cli.main([*SHORT, "--save", str(file)]) == 130
    state, _ = resumed(file)
    assert state.step > 0
    assert capsys.readouterr().err == (
        f"interrupted after {state.step} steps; wrote {file}, continue with "
        f"--resume {file}\n"
    )


def test_an_interrupted_run_without_a_file_says_so(monkeypatch, capsys):
    def interrupt(*_, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", interrupt)
    assert cli.main(SHORT) == 130
    assert capsys.readouterr().err == (
        "interrupted after 0 steps; nothing was saved, because there was no "
        "--save FILE\n"
    )


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


def test_a_folder_is_not_a_file(tmp_path, capsys):
    assert cli.main([*SHORT, "--save", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == (
        f"error: file: got the folder {str(tmp_path)!r}, expected a file. "
        "Add a file name to it."
    )


def test_a_file_whose_header_lacks_entries(tmp_path, capsys):
    file = tmp_path / "run.safetensors"
    state = build("deep_mlp", backend="reference").state()
    state.save(file, {"spec": "deep_mlp", "seed": 0})
    words = "train --backend flax --resume".split()
    assert cli.main([*words, str(file)]) == 2
    assert capsys.readouterr().err.strip() == (
        f"error: state file {str(file)!r}: got a header without "
        "hyper_parameters, dtype, expected spec, hyper_parameters, dtype, "
        "seed. Write the file with `Trainer.save`."
    )


def test_a_file_with_an_unknown_hyper_parameter(tmp_path, capsys):
    file = tmp_path / "run.safetensors"
    header = {"spec": "deep_mlp", "dtype": "float32", "seed": 0}
    state = build("deep_mlp", backend="reference").state()
    state.save(file, header | {"hyper_parameters": {"width": 3}})
    words = "train --backend flax --resume".split()
    assert cli.main([*words, str(file)]) == 2
    assert "hyper-parameter: got 'width', expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "digits_cnn"),
        ("dtype", "float64"),
        ("seed", "3"),
        ("batch-norm", "ema"),
    ],
)
def test_resume_refuses_options_of_another_run(
    tmp_path, capsys, option, value
):
    build("deep_mlp", backend="flax").save(tmp_path / "r")
    words = f"train --backend flax --resume {tmp_path / 'r'}".split()
    assert cli.main([*words, f"--{option}", value]) == 2
    message = capsys.readouterr().err
    assert f"--{option}: got" in message
    assert f"Leave --{option} out when you resume." in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backend torch", "backend: got 'torch', expected one of"),
        ("--backend flax --resume no", "--resume: got 'no', expected a file"),
        ("--backend flax --batch-size 0", "batch_size: got 0, expected"),
        ("--backend flax --seed -1", "seed: got -1, expected an int"),
        ("--backend flax --save no/f", "expected a file in a folder that"),
    ],
)
def test_bad_input_exits_with_2(words, message, capsys):
    assert cli.main(["train", *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
