"""What is left over is named, and the rules that are offered are sound."""

import numpy as np
import pytest

from common.porting import ArrayInfo, Plan
from common.porting.leftovers import MANY, refuse, suggest
from common.porting.sides import Side


def side(what, shapes):
    infos = {n: ArrayInfo(shape, "float32") for n, shape in shapes.items()}
    return Side.plain(what, infos)


def sides(left, right):
    return side("source", left), side("target", right)


def text_of(left, right, arrays=None, problems=()):
    source, target = sides(left, right)
    with pytest.raises(ValueError) as caught:
        refuse(
            source,
            target,
            arrays or {},
            list(left),
            list(right),
            problems,
        )
    return str(caught.value)


def test_nothing_left_over_is_no_error():
    source, target = sides({"a": (2,)}, {"a": (2,)})
    refuse(source, target, {}, [], [], ())


def test_everything_is_named_with_its_size():
    text = text_of(
        {"a.bias": (2,), "mask": (3,)},
        {"head.w": (2, 4)},
        {"a.bias": np.array([1.0, -2.5])},
        ["a pair that does not fit"],
    )
    assert text.startswith(
        "port: got 2 source arrays and 1 target arrays without a "
        "counterpart, and 1 pairs that do not match, expected none."
    )
    for line in (
        "  a pair that does not fit.",
        "  source a.bias (2,) float32, largest magnitude 2.5",
        "  source mask (3,) float32",
        "  target head.w (2, 4) float32",
        "  a.bias -> nothing",
        "  nothing -> head.w",
    ):
        assert line in text.splitlines(), text
    assert "`align(source, target, x)`" in text and "`diff`" in text


def test_many_arrays_are_named_as_one():
    count = MANY + 1
    text = text_of({f"l.{i}.w": (2,) for i in range(count)}, {})
    assert f"source l.{{i=0..{count - 1}}}.w (2,) float32 ({count}x)" in text


def test_a_problem_of_batch_norm_alone_offers_no_rules():
    text = text_of({}, {}, problems=["batch norm x: got one copy"])
    assert text == "port: batch norm x: got one copy."


def test_layers_are_paired_in_the_order_of_their_numbers():
    """`layer10` comes after `layer9`."""
    left = {f"blocks.{i}.w": (2, 2) for i in range(11)}
    right = {f"layer{i + 1}.w": (2, 2) for i in reversed(range(11))}
    rules = suggest(*sides(left, right), list(left), list(right))
    assert rules == ["blocks.{i}.w -> layer{i+1}.w"]


def test_other_shapes_and_kinds_are_not_paired():
    left = {"a.weight": (2, 2), "b.bias": (2,), "c.weight": (3, 3)}
    right = {"x.weight": (2, 2), "y.scale": (2,)}
    rules = suggest(*sides(left, right), list(left), list(right))
    assert rules == [
        "a.weight -> x.weight",
        "b.bias -> nothing",
        "c.weight -> nothing",
        "nothing -> y.scale",
    ]


def test_as_many_of_a_kind_are_needed():
    left, right = {"a.w": (2,)}, {"x.w": (2,), "y.w": (2,)}
    rules = suggest(*sides(left, right), list(left), list(right))
    assert rules[0] == "a.w -> nothing"


def test_the_rules_that_are_offered_are_read():
    left = {"a.0.w": (2,), "a.1.w": (2,), "odd name": (3,)}
    right = {"b.1.w": (2,), "b.2.w": (2,), "new": (4,)}
    source, target = sides(left, right)
    rules = suggest(source, target, list(left), list(right))
    plan = Plan.parse("\n".join(rules), source.infos, target.infos)
    assert set(plan.layouts) == {"b.1.w", "b.2.w"}
    assert plan.ignored == ("odd name",) and plan.kept == ("new",)
