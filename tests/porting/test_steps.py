"""The words of the grammar stand for steps, and the steps for words."""

import pytest

from common.layouts import (
    Cast,
    Concatenate,
    Flip,
    Index,
    KeyData,
    Reshape,
    Slice,
    Stack,
    Transpose,
    WrapKeyData,
)
from common.porting.arithmetic import Divide
from common.porting.grammar import Call, parse_call
from common.porting.steps import (
    build_steps,
    cut,
    join,
    write_join,
    write_step,
)

SHAPE = (4, 6)
STEPS = {
    "transpose": Transpose((1, 0)),
    "reshape(2, 12)": Reshape((2, 12)),
    "flip(0)": Flip((0,)),
    "slice(1, 2, 4)": Slice(1, 2, 4),
    "index(0, 3)": Index(0, 3),
    "cast('float32', 'float64')": Cast("float32", "float64"),
    "key_data('threefry2x32')": KeyData("threefry2x32"),
    "wrap_key_data('threefry2x32')": WrapKeyData("threefry2x32"),
    "divide(0.1)": Divide(0.1),
    "multiply(0.1)": Divide(0.1, inverted=True),
}


@pytest.mark.parametrize("text", STEPS)
def test_each_word_stands_for_a_step(text):
    step = STEPS[text]
    assert str(write_step(step)) == text
    shape = (4, 2) if isinstance(step, WrapKeyData) else SHAPE
    assert build_steps(parse_call(text), shape) == (step,)


def test_shorter_words():
    assert build_steps(Call("copy"), SHAPE) == ()
    assert build_steps(Call("reshape", (2, -1)), SHAPE) == (Reshape((2, 12)),)
    (step,) = build_steps(Call("transpose"), (2, 3, 4))
    assert step == Transpose((2, 1, 0))
    assert build_steps(write_step(step), (2, 3, 4)) == (step,)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("split", [Slice(0, 0, 2), Slice(0, 2, 4)]),
        ("split(1)", [Slice(1, 0, 3), Slice(1, 3, 6)]),
        ("split(1, sizes=(2, 4))", [Slice(1, 0, 2), Slice(1, 2, 6)]),
    ],
)
def test_cuts(text, pieces):
    assert cut(parse_call(text), SHAPE, 2) == pieces


def test_an_axis_is_taken_apart():
    assert cut(Call("unstack"), SHAPE, 4) == [Index(0, i) for i in range(4)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("split", 3),
        ("split(sizes=(1, 2))", 2),
        ("split(sizes=(4, 0))", 2),
        ("split(5)", 2),
        ("unstack", 3),
        ("unstack(5)", 4),
    ],
)
def test_cuts_that_do_not_cover_the_array_are_refused(text, count):
    with pytest.raises(ValueError, match="step"):
        cut(parse_call(text), SHAPE, count)


@pytest.mark.parametrize(
    ("text", "joined", "shapes"),
    [
        ("concatenate", Concatenate(0, (4, 1)), [(4, 6), (1, 6)]),
        ("concatenate(1)", Concatenate(1, (6, 2)), [(4, 6), (4, 2)]),
        ("stack", Stack(0, 2), [SHAPE, SHAPE]),
        ("stack(2)", Stack(2, 2), [SHAPE, SHAPE]),
    ],
)
def test_joins(text, joined, shapes):
    assert join(parse_call(text), shapes) == joined
    assert str(write_join(joined)) == text


@pytest.mark.parametrize(
    ("text", "shapes"),
    [("concatenate(2)", [SHAPE, SHAPE]), ("stack", [SHAPE, (4, 5)])],
)
def test_parts_that_do_not_fit_are_refused(text, shapes):
    with pytest.raises(ValueError):
        join(parse_call(text), shapes)
