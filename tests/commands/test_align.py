"""`align` prints the mapping, and writes it as rules that `port` reads."""

import sys

import pytest

from common import cli
from tests.commands import user_pair
from tests.commands.user_pair import SHAPE

RIGHT = """
class FeaturesFirst(Right):
    def __call__(self, x):
        return super().__call__(x.T)

def features_first():
    return FeaturesFirst(("linear", "norm"), 1e-5)

def right():"""
RULES = """
linear.weight -> transpose -> linear.kernel
linear.bias -> linear.bias
norm.weight -> norm.scale
norm.bias -> norm.bias
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    user_pair.write(tmp_path, "aligned")
    yield tmp_path
    sys.modules.pop("aligned", None)


def test_the_rules_serve_port_and_compare(folder, capsys):
    pair = ["aligned:left", "aligned:renamed"]
    assert cli.main(["align", *pair, *SHAPE, "--rules", "map.txt"]) == 0
    printed = capsys.readouterr().out
    assert "dense.kernel" in printed and "proved" in printed
    rules = (folder / "map.txt").read_text()
    assert "linear.weight -> transpose -> dense.kernel" in rules
    given = ["--rules", "map.txt"]
    saved = ["--save", "new.safetensors"]
    assert cli.main(["port", *pair, *given, *saved]) == 0
    assert (folder / "new.safetensors").exists()
    words = ["compare", *pair, *SHAPE, *given, "--carry", "--steps", "1"]
    assert cli.main(words) == 0


def test_a_numerical_difference_exits_with_1(capsys):
    pair = ["aligned:left", "aligned:other_eps"]
    assert cli.main(["align", *pair, *SHAPE]) == 1
    assert "differs" in capsys.readouterr().out


def test_inputs_that_do_not_fit_exit_with_2(capsys):
    pair = ["aligned:left", "aligned:right"]
    assert cli.main(["align", *pair, "--inputs", "shape=5,2"]) == 2
    message = capsys.readouterr().err
    assert "error: left model: got" in message and message.count("\n") == 1


@pytest.mark.parametrize("command", ["align", "compare", "diff"])
def test_each_side_has_its_own_inputs(command, folder, capsys):
    """The right model takes the features first, and wants a transpose."""
    text = user_pair.MODELS.replace("def right():", RIGHT)
    (folder / "aligned.py").write_text(text)
    more = {
        "align": [],
        "compare": ["--carry", "--steps", "1", "--rules", "map.txt"],
        "diff": ["--weights", "symmetric"],
    }
    (folder / "map.txt").write_text(RULES)
    words = [command, "aligned:left", "aligned:features_first", *SHAPE]
    words += ["--right-inputs", "transpose=1,0", *more[command]]
    assert cli.main(words) == 0, capsys.readouterr()
