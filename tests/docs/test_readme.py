"""The README: its examples run, CI runs its commands, its paths exist."""

import pathlib
import re
import subprocess
import sys

import pytest

from common import cli
from common.commands import COMMANDS as COMMAND_MODULES

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
IMPLS = ("impl_equinox", "impl_flax")
COMMANDS = re.findall(r"^```sh\n(.*?)\n```$", README, re.M | re.S)


def test_examples_run():
    """They run in a process of their own, because a user has x64 off."""
    done = subprocess.run(
        [sys.executable, "-m", "doctest", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert README.count(">>> ") > 10


def test_ci_runs_both_commands():
    script = (ROOT / ".ci" / "run").read_text()
    compare, tests = COMMANDS
    assert compare.endswith(" .venv/bin/eqx-vs-nnx")
    assert 'readme ".venv/bin/eqx-vs-nnx"' in script
    assert f"readme '{tests.rpartition('.venv/bin/python ')[2]}'" in script


def test_every_command_is_listed():
    rows = re.findall(r"^\| `(\w+)` \|", README, re.M)
    assert rows == list(COMMAND_MODULES)


def test_commands_are_accepted(monkeypatch):
    for command in COMMAND_MODULES.values():
        monkeypatch.setattr(command, "run", lambda options, console: 0)
    examples = re.findall(r"^\$ eqx-vs-nnx (.*)$", README, re.M)
    for words in examples:
        assert cli.main(words.split()) == 0
    assert examples


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_paths_exist(name):
    text = (ROOT / name).read_text()
    paths = set(re.findall(r"`((?:\.?\w+/)+(?:\w+\.\w+)?)`", text))
    assert len(paths) > 4
    for path in paths:
        in_common = (ROOT / "common" / path).exists()
        in_impls = all((ROOT / impl / path).exists() for impl in IMPLS)
        assert (ROOT / path).exists() or in_common or in_impls, path
