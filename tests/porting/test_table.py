"""A plan is a table, whose lines are folded where they are too long."""

import pytest

from common.layouts import Index, Layout, Transpose
from common.porting import ArrayInfo, Plan
from common.porting.table import table


def info(*shape):
    return ArrayInfo(shape, "float64")


def plan(words=""):
    """Makes a plan of two layers, with names that hold more words."""
    source, target, layouts = {}, {}, {}
    for i in range(2):
        name, other = f"blocks.{i}.{words}w", f"layers.{i + 1}.{words}kernel"
        source[name], target[other] = info(2, 3), info(3, 2)
        layouts[other] = Layout.of(name, (2, 3), Transpose((1, 0)))
    source["stack"] = info(2, 4)
    for i in range(2):
        target[f"s.{i}"] = info(4)
        layouts[f"s.{i}"] = Layout.of("stack", (2, 4), Index(0, i))
    source["mask"], target["eps"], target["head"] = info(9), info(), info(4)
    return Plan(
        layouts,
        source,
        target,
        ignored=("mask",),
        kept=("head",),
        notes=("a word " * 20,),
        derived={"eps": 0.5},
    )


def test_a_table_that_fits_has_aligned_columns():
    lines = table(plan(), 80).splitlines()
    assert lines[:3] == [
        "blocks.{i}.w (2, 3) -> transpose -> layers.{i+1}.kernel (3, 2) (2x)",
        "stack (2, 4)        -> unstack   -> s.{i} (4,)",
        "derived: 0.5        ->           -> eps ()",
    ]
    assert lines[3:5] == ["ignored: mask (9,)", "kept: head (4,)"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_too_long(width):
    text = table(plan("attention.output_projection.dense."), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "(2x)" in text and "derived: 0.5" in text
    assert "stack (2, 4) -> unstack -> s.{i} (4,)" in lines


def test_a_row_that_is_too_long_is_several_lines():
    lines = table(plan("attention.output_projection."), 80).splitlines()
    assert lines[:3] == [
        "blocks.{i}.attention.output_projection.w (2, 3)",
        "    -> transpose",
        "    -> layers.{i+1}.attention.output_projection.kernel (3, 2) (2x)",
    ]
