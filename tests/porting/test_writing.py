"""Layouts are written as rules that say the same."""

import numpy as np
import pytest

from common.layouts import (
    Concatenate,
    Index,
    Layout,
    Reshape,
    Slice,
    Stack,
    Transpose,
)
from common.porting import ArrayInfo, Plan
from common.porting.writing import rules_of, write_rules

A = "a", (4, 2)
TURN = Transpose((1, 0))


def plan(layouts, **options):
    infos = {
        source.name: ArrayInfo(source.shape, "float64")
        for layout in layouts.values()
        for source in layout.sources
    }
    target = {
        name: ArrayInfo(layout.shape, "float64")
        for name, layout in layouts.items()
    }
    for names, side in (("ignored", infos), ("kept", target)):
        side |= {n: ArrayInfo((3,), "float64") for n in options.get(names, ())}
    return Plan(layouts, infos, target, **options)


CASES = {
    "copy": ({"x": Layout.of(*A)}, "a -> copy -> x"),
    "vector": ({"x": Layout.of("a", (4,))}, "a -> x"),
    "transpose": ({"x": Layout.of(*A, TURN)}, "a -> transpose -> x"),
    "split": (
        {
            "q.x": Layout.of(*A, Slice(0, 0, 2)),
            "k.x": Layout.of(*A, Slice(0, 2, 4)),
        },
        "a -> split -> {q,k}.x",
    ),
    "uneven": (
        {
            "q.x": Layout.of(*A, Slice(0, 0, 1)),
            "k.x": Layout.of(*A, Slice(0, 1, 4)),
        },
        "a -> split(sizes=(1, 3)) -> {q,k}.x",
    ),
    "unstack": (
        {f"l.{i}": Layout.of(*A, Index(0, i)) for i in range(4)},
        "a -> unstack -> l.{i}",
    ),
    "stack": (
        {
            "x": Layout(
                tuple(Layout.of(f"l.{i}", (2,)) for i in range(3)), Stack(0, 3)
            )
        },
        "l.{i} -> stack -> x",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_one_rule(name):
    layouts, rule = CASES[name]
    assert write_rules(plan(layouts)) == rule


MIXED = Layout(
    (Layout.of(*A, TURN), Layout.of("b", (2, 3))), Concatenate(1, (4, 3))
)


@pytest.mark.parametrize(
    "layouts",
    [
        *(layouts for layouts, _ in CASES.values()),
        {"x": MIXED},
        {"x": MIXED.then(Reshape((14,)))},
        {
            "x": Layout.of(*A, Slice(0, 0, 1)),
            "y": Layout.of(*A, Slice(0, 1, 4), TURN),
        },
        {"odd name": Layout.of("a.b", (3,)), "x": Layout.of("1 a", (3,))},
    ],
    ids=str,
)
def test_rules_say_the_same_when_they_are_read(layouts):
    found = plan(layouts, ignored=("mask",), kept=("head",))
    text = write_rules(found)
    assert Plan.parse(text, found.source, found.target) == found
    arrays = {
        name: np.random.default_rng(0).normal(size=info.shape)
        for name, info in found.source.items()
    }
    again = Plan.parse(text, found.source, found.target).apply(arrays)
    for name, x in found.apply(arrays).items():
        assert np.array_equal(x, again[name])
    assert text.splitlines()[-2:] == ["mask -> nothing", "nothing -> head"]


def test_a_rule_names_the_arrays_that_it_is_about():
    ((rule, entries),) = rules_of(plan(CASES["split"][0]))
    assert str(rule) == "a -> split -> {q,k}.x"
    assert [entry.targets for entry in entries] == [("q.x", "k.x")]


def test_notes_are_comments_and_derived_values_are_rules():
    layouts = {"x": Layout.of("a", (4,))}
    infos = {"x": ArrayInfo((4,), "float64"), "n": ArrayInfo((2,), "int32")}
    found = Plan(
        layouts,
        {"a": ArrayInfo((4,), "float64")},
        infos,
        notes=("a note",),
        derived={"n": [1, 2]},
    )
    assert write_rules(found).splitlines() == [
        "# a note",
        "a -> x",
        "derive([1, 2]) -> n",
    ]
