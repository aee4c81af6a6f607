"""The progress bar."""

import io

import rich.console

from common.rendering.progress import ProgressBar


def drawn(*, terminal: bool, enabled: bool = True) -> str:
    file = io.StringIO()
    console = rich.console.Console(
        file=file, force_terminal=terminal, width=80, color_system=None
    )
    with ProgressBar(3, "start", console=console, enabled=enabled) as bar:
        bar.advance()
        bar.advance(2)
        bar.describe("epoch [1]", "loss 0.5")
    return file.getvalue()


def test_bar_shows_steps_and_texts_on_a_terminal():
    text = drawn(terminal=True)
    for word in ("epoch [1]", "3/3", "loss 0.5"):
        assert word in text


def test_bar_prints_nothing_elsewhere():
    assert not drawn(terminal=False).strip()
    assert not drawn(terminal=True, enabled=False).strip()
