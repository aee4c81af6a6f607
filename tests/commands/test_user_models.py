"""Models of the user: what is named, and `compare` on two of them."""

import json
import sys

import pytest

from common import cli
from common.commands import user_models
from tests.commands import user_pair
from tests.commands.user_pair import SHAPE


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    user_pair.write(tmp_path, "compared")
    yield tmp_path
    sys.modules.pop("compared", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compared:number", "got int, expected an Equinox model"),
        ("compared:needs", "got TypeError when calling it without"),
    ],
)
def test_what_is_no_model_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        user_models.model(words)


def test_a_model_or_a_function_that_makes_one():
    made = [user_models.model(f"compared:{n}") for n in ("left", "source")]
    assert {type(x).__name__ for x in made} == {"Left"}


def test_compare_two_models(folder, capsys):
    words = ["compare", "compared:left", "compared:right", *SHAPE, "--carry"]
    words += ["--steps", "1", "--html", "r.html", "--json", "r.json"]
    assert cli.main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Left ~ Right float64 and float32: all agree." in printed
    (stored,) = json.loads((folder / "r.json").read_text())["reports"]
    assert stored["ok"] and stored["models"] == ["Left", "Right"]
    assert "</html>" in (folder / "r.html").read_text()


def test_compare_names_the_lines(capsys):
    words = ["compare", "compared:left", "compared:other_eps", *SHAPE]
    assert cli.main([*words, "--steps", "1", "--carry"]) == 1
    printed = capsys.readouterr().out
    assert "eps 1e-05 against 0.001" in printed
    assert printed.count("compared.py:") >= 2


def test_other_weights_are_a_mismatch_without_carry(capsys):
    words = ["compare", "compared:left", "compared:right", *SHAPE]
    assert cli.main([*words, "--steps", "1"]) == 1
    assert "DISAGREE. state" in capsys.readouterr().out


def test_compare_with_a_choice_for_batch_norm(capsys):
    words = ["compare", "compared:trained", "compared:Module", *SHAPE]
    words += ["--steps", "1", "--carry", "--batch-norm", "resume"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert "left out: outputs in inference mode" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compared:left"], "got ['compared:left'], expected two models"),
        (["compared:left", "compared:right"], "--inputs: got none"),
        (["compared:left", "compared:right", "--dtype", "x"], "got --dtype"),
        (
            ["compared:left", "compared:right", *SHAPE, "--rules", "no"],
            "--rules: got 'no', expected a file that exists. Write",
        ),
        (["--carry"], "compare without LEFT and RIGHT: got --carry"),
        (
            ["compared:left", "compared:right", "--inputs", "shape=5,2"],
            "left model: got",
        ),
    ],
)
def test_bad_input_exits_with_2(words, message, capsys):
    assert cli.main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


def test_diff_at_the_symmetric_point(capsys):
    words = ["diff", "compared:left", "compared:other_eps", *SHAPE]
    assert cli.main([*words, "--weights", "symmetric"]) == 1
    printed = capsys.readouterr().out
    assert "literal 1e-05" in printed and "literal 0.001" in printed
    assert "float64" in printed
    narrow = ["--weights", "symmetric", "--dtype", "float32"]
    assert cli.main([*words, *narrow]) == 1
    printed = capsys.readouterr().out
    assert "float32" in printed and "float64" not in printed
    wide = ["--weights", "symmetric", "--tolerance", "0.5"]
    assert cli.main([*words, *wide]) == 0
    assert cli.main([*words, "--weights", "equal"]) == 2
    assert "--weights: got 'equal'" in capsys.readouterr().err


def test_diff_names_the_options(capsys):
    words = ["diff", "compared:source", "compared:source"]
    assert cli.main([*words, "--inputs", "shape=5,2"]) == 2
    message = capsys.readouterr().err
    assert "pass `--right-inputs` if" in message
    assert "pass `--dtype none` if" in message


def test_diff_suggests_weights_for_functions_without_parameters(capsys):
    words = ["diff", "compared:left", "compared:right", *SHAPE]
    assert cli.main(words) == 2
    message = capsys.readouterr().err
    assert "function 'compared:left': got one without parameters" in message
    assert "add --weights symmetric" in message
