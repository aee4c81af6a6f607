"""The README keeps its word: its code runs, its commands are what CI runs."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)\n```$", README, re.M | re.S)


def test_examples_run():
    """In a process of its own, because a user has x64 off."""
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


def test_there_are_two_commands_and_ci_runs_them():
    main, tests = COMMANDS
    script = (ROOT / ".ci" / "run").read_text()
    for command in (main, tests):
        ending = command.rpartition(".venv/bin/python ")[2]
        assert f'readme "{ending}"' in script


def test_paths_it_names_exist():
    for path in re.findall(r"`([\w./]+/)`", README):
        assert (ROOT / path).is_dir(), path
