"""Dispatch, help, versions, exit statuses and closed pipes."""

import subprocess
import sys
import tomllib

import pytest

from common import cli
from common.commands import COMMANDS, compare
from tests.commands.processes import (
    ROOT,
    SCRIPT,
    environment,
    run_module,
    run_script,
)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_examples(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "usage: eqx-vs-nnx" in text and "python -m" not in text
    assert max(map(len, text.splitlines())) <= columns
    if command:
        _, _, examples = text.partition("examples:")
        assert f"eqx-vs-nnx {command}" in examples


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_accepted_by_the_parser(command, monkeypatch):
    seen = []

    def run(options, console):
        seen.append(options.command)
        return 0

    monkeypatch.setattr(COMMANDS[command], "run", run)
    examples = COMMANDS[command].EXAMPLES.strip().splitlines()
    for example in examples:
        program, *words = example.split()
        assert program == "{program}"
        assert cli.main(words) == 0
    assert seen == [command] * len(examples) and examples


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["comparre"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_version_names_what_a_bug_report_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = run_script("--version")
    assert done.returncode == 0, done.stderr
    first, *libraries = done.stdout.splitlines()
    assert first == f"eqx-vs-nnx {project['version']}"
    assert {line.split()[0] for line in libraries} >= {
        "Python",
        "jax",
        "equinox",
        "flax",
    }


@pytest.mark.parametrize("run", [run_script, run_module])
def test_both_entry_points_list_the_commands(run):
    done = run("--help")
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


def test_the_command_line_starts_without_jax():
    """So that Control-C is handled while JAX is imported."""
    program = "import sys, common.cli; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "False"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def bug(*_):
        return 1 + None  # type: ignore[operator]

    monkeypatch.setattr(compare, "run", bug)
    with pytest.raises(TypeError):
        cli.main(["compare"])


def test_debug_shows_the_traceback_of_bad_input():
    with pytest.raises(ValueError, match="steps: got 0"):
        cli.main(["compare", "--steps", "0", "--debug"])


def test_an_error_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["compare", "--model", "nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: spec: got 'nope', expected one of")


@pytest.mark.parametrize(
    "words", ["--help", "layers --name dropout --dtype float64"]
)
def test_a_reader_that_has_gone_is_no_error(words):
    """As in `eqx-vs-nnx ... | head -2`."""
    variables = environment()
    variables.pop("PYTHONUNBUFFERED", None)  # argparse would hide the error
    with subprocess.Popen(
        [str(SCRIPT), *words.split()],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == cli.BROKEN_PIPE


def test_an_error_due_to_control_c_is_an_interrupt(monkeypatch, capsys):
    def convert(*_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("setting an array element") from None

    monkeypatch.setattr(compare, "run", convert)
    assert cli.main(["compare"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(ValueError, match="setting an array"):
        cli.main(["compare", "--debug"])
