"""`align` prints the mapping, and writes it as rules that `port` reads."""

import sys

import pytest

from common import cli
from tests.commands import user_pair
from tests.commands.user_pair import SHAPE


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
