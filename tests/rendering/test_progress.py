"""The progress bar, and the lines in its place."""

import io

import pytest
import rich.console

from common.rendering import progress
from common.rendering.progress import ProgressBar


def drawn(*, enabled: bool = True, **options) -> str:
    """Returns what a terminal shows of a bar of three steps."""
    file = io.StringIO()
    console = rich.console.Console(
        file=file, force_terminal=True, width=80, **options
    )
    with ProgressBar(3, "start", console=console, enabled=enabled) as bar:
        bar.advance()
        bar.advance(2)
        bar.describe("epoch [1]", "loss 0.5")
    return file.getvalue()


def test_bar_shows_steps_and_texts_on_a_terminal():
    text = drawn(color_system=None)
    for word in ("epoch [1]", "3/3", "loss 0.5"):
        assert word in text


def test_a_bar_without_colors_shows_what_is_left():
    text = drawn(color_system="truecolor", no_color=True)
    assert "start " + "─" * 40 in text and "━" * 40 in text
    assert "─" not in drawn(color_system="truecolor")


def test_bar_prints_nothing_if_it_is_not_enabled(capsys):
    assert not drawn(enabled=False).strip()
    with ProgressBar(1, enabled=False) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", ["none", "dumb"])
def test_lines_take_the_place_of_the_bar_elsewhere(
    terminal, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    console = None
    if terminal == "dumb":
        monkeypatch.setenv("TERM", "dumb")
        console = rich.console.Console(force_terminal=True)
    with ProgressBar(200, "epoch [1]", console=console) as bar:
        for step in range(200):
            bar.describe("epoch [1]", f"loss {step}")
            bar.advance()
    printed = capsys.readouterr()
    assert not printed.out
    lines = printed.err.splitlines()
    assert lines[0] == "epoch [1]: 20/200 loss 19"
    assert len(lines) == 9  # the end needs none: the result follows


def test_a_short_computation_prints_no_line(capsys):
    with ProgressBar(100) as bar:
        for _ in range(100):
            bar.advance()
    assert capsys.readouterr() == ("", "")
