"""Tests the text of a mapping."""

import pytest

from common.alignment.grouping import Line, grouped
from common.alignment.text import chain
from common.layouts import (
    Concatenate,
    Flip,
    Index,
    Layout,
    Reshape,
    Slice,
    Stack,
    Transpose,
)


def texts(*lines):
    made = [Line(left, right, (2,)) for left, right in lines]
    return [f"{x.left} -> {x.right} ({x.count})" for x in grouped(made)]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((), "a"),
        ((Transpose((1, 0)),), "a -> transpose"),
        (
            (Reshape((3, 2, 4)), Transpose((1, 0, 2))),
            "a -> reshape(3, 2, 4) -> transpose(1, 0, 2)",
        ),
        ((Slice(1, 0, 2), Flip((0,))), "a -> slice(1, 0, 2) -> flip(0)"),
        ((Index(0, 3),), "a -> index(0, 3)"),
    ],
)
def test_steps_are_words(steps, text):
    assert chain(Layout.of("a", (6, 4), *steps)) == text


def test_joined_arrays_are_in_brackets():
    parts = Layout.of("a", (2, 3), Transpose((1, 0))), Layout.of("b", (3, 2))
    assert chain(Layout(parts, Concatenate(1, (2, 2)))) == (
        "[a -> transpose; b] -> concatenate(1)"
    )
    assert chain(Layout(parts, Stack(0, 2))) == "[a -> transpose; b] -> stack"


def test_equal_layers_are_one_line_with_their_offset():
    assert texts(("bn0.w", "bn1.scale"), ("bn1.w", "bn2.scale")) == [
        "bn{i-1}.w -> bn{i}.scale (2)"
    ]


def test_two_numbers_are_two_variables():
    lines = [
        (f"s.{i}.l.{j}.w", f"{i}.{j + 1}.k") for i in range(2) for j in (0, 1)
    ]
    assert texts(*lines) == ["s.{i}.l.{j-1}.w -> {i}.{j}.k (4)"]


def test_numbers_that_do_not_change_together_stay():
    lines = [("a.0", "b.0"), ("a.2", "b.1")]
    assert texts(*lines) == ["a.0 -> b.0 (1)", "a.2 -> b.1 (1)"]


def test_all_slices_of_an_array_are_one_line():
    lines = [
        (
            f"{n}.qkv -> slice(0, {2 * i}, {2 * i + 2}) -> transpose",
            f"{n}.{x}_proj.w",
        )
        for n in range(2)
        for i, x in enumerate("qkv")
    ]
    assert texts(*lines) == [
        "{i}.qkv -> split in 3 -> transpose -> {i}.{q,k,v}_proj.w (6)"
    ]


def test_slices_that_leave_something_out_stay():
    lines = [("a -> slice(0, 2, 4)", "x"), ("a -> slice(0, 4, 6)", "y")]
    assert len(texts(*lines)) == 2


def test_a_stack_of_layers_is_one_line():
    assert texts(("[l.0.w; l.1.w; l.2.w] -> stack", "w")) == [
        "[l.{0..2}.w] -> stack -> w (1)"
    ]
    assert texts(
        ("w -> index(0, 0)", "l.0.w"), ("w -> index(0, 1)", "l.1.w")
    ) == ["w -> index(0, {i}) -> l.{i}.w (2)"]
