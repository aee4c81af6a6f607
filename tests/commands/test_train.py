"""`train`: saving, resuming in the other library, and runs that end early."""

import warnings

import jax
import numpy as np
import optax
import pytest

from common import State, Trainer, build, cli
from common.commands import train
from common.training.identity import describe
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
    words = "train --backend flax --epochs 1 --batch-size 256"
    # Virtual devices, unless this machine has as many accelerators.
    devices = "--devices 4 --shard fsdp"
    second = run_script(*words.split(), *devices.split(), "--resume", file)
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


@pytest.mark.parametrize(
    "words, message",
    [
        ("--shard fsdp", "--shard: got 'fsdp' without --devices, expected "),
        ("--devices 0", "--devices: got 0, expected 1 or more. "),
        ("--devices 99", "--devices: got 99, expected at most "),
    ],
)
def test_devices_that_do_not_exist_are_refused(capsys, words, message):
    jax.devices()  # more cannot be made up after this
    assert cli.main([*SHORT, *words.split()]) == 2
    assert message in capsys.readouterr().err


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
    message = capsys.readouterr().err
    assert "got a header without hyper_parameters, dtype, opti" in message
    assert str(file) in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "digits_cnn"),
        ("dtype", "float64"),
        ("seed", "3"),
        ("batch-norm", "ema"),
        ("optimizer", "sgd"),
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


# --- the optimizer ----------------------------------------------------------


def saved_optimizer(file) -> str:
    return State.read(file)[1]["optimizer"]


def test_a_run_with_an_optimizer_goes_on_with_it(tmp_path, capsys):
    file = tmp_path / "run.safetensors"
    save = ["--save", str(file)]
    words = ["--optimizer", "lion", "--learning-rate", "2e-4"]
    assert cli.main([*SHORT, *words, "--batch-size", "128", *save]) == 0
    expected = describe(optax.lion(2e-4))
    assert saved_optimizer(file) == expected
    resume = "train --backend reference --epochs 1 --resume".split()
    capsys.readouterr()
    assert cli.main([*resume, str(file), *save]) == 0
    assert saved_optimizer(file) == expected
    assert State.read(file)[1]["batch_size"] == 128
    assert capsys.readouterr().err == ""
    # Another rate is a choice of the user, who is told.
    rate = ["--learning-rate", "1e-4", "--batch-size", "64"]
    assert cli.main([*resume, str(file), *rate, *save]) == 0
    assert saved_optimizer(file) == describe(optax.lion(1e-4))
    assert (
        f"note: {file} was trained with lion and learning rate 0.0002; the "
        "run continues with 0.0001." in capsys.readouterr().out
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main([*resume, str(file), "--batch-size", "256"]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: state file {str(file)!r}: got batch")
    assert warning.count("\n") == 1


def test_a_learning_rate_is_that_of_the_models_optimizer(tmp_path):
    file = tmp_path / "run.safetensors"
    words = ["--learning-rate", "0.5", "--epochs", "0", "--save", str(file)]
    assert cli.main([*SHORT, *words]) == 0
    assert saved_optimizer(file) == describe(optax.adam(0.5))
    assert cli.main([*SHORT, *words[2:], "--optimizer", "sgd"]) == 0
    assert saved_optimizer(file) == describe(optax.sgd(1e-3))


def test_a_run_with_an_optimizer_of_ones_own(tmp_path, capsys):
    file = tmp_path / "run.safetensors"
    optimizer = optax.chain(optax.clip(1.0), optax.sgd(1e-3))
    build("deep_mlp", backend="flax", optimizer=optimizer).save(file)
    assert cli.main(["train", "--backend", "flax", "--resume", str(file)]) == 2
    message = capsys.readouterr().err
    assert "Continue the run in Python with `common.load`" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optimizer adan2", "--optimizer: got 'adan2', expected one of"),
        ("--learning-rate 0", "--learning-rate: got 0, expected a positive"),
        ("--learning-rate nan", "--learning-rate: got nan, expected a posi"),
    ],
)
def test_an_optimizer_that_does_not_exist(words, message, capsys):
    assert cli.main([*SHORT, *words.split()]) == 2
    assert message in capsys.readouterr().err
