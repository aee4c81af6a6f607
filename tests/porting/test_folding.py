"""Long lines are folded, and no text is lost."""

import pytest

from common.porting.folding import INDENT, fold, fold_parts

PATH = "encoder.layers.0.attention.query_projection.kernel"


def test_what_fits_stays():
    assert fold("a  b\n c", 5) == "a  b\n c"
    assert fold_parts(["a", "", "-> b"], 6) == ["a -> b"]


def test_lines_break_at_spaces_and_are_indented():
    assert fold("  got one two", 9) == "  got one\n      two"
    assert fold("x\ngot one two", 8) == "x\ngot one\n    two"


def test_a_long_path_breaks_after_a_dot():
    lines = fold(f"got {PATH} ({PATH})", 30).split("\n")
    assert max(map(len, lines)) <= 30
    assert lines[0] == "got encoder.layers.0."
    text = "".join(line.removeprefix(INDENT) for line in lines)
    assert text.replace(" ", "") == f"got{PATH}({PATH})"


def test_a_word_without_dots_is_kept_whole():
    assert fold("a " + 20 * "x", 10) == "a\n    " + 20 * "x"


@pytest.mark.parametrize("width", [32, 40, 60])
def test_each_part_begins_a_line(width):
    lines = fold_parts([PATH, "-> transpose", f"-> {PATH} (3x)"], width)
    assert max(map(len, lines)) <= width
    assert INDENT + "-> transpose" in lines
    assert [line for line in lines if line.startswith(INDENT + "->")][1:]
