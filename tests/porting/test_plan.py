"""Tests of plans and of their rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.layouts import (
    Concatenate,
    Index,
    Layout,
    Reshape,
    Slice,
    Source,
    Stack,
    Transpose,
)
from common.porting import ArrayInfo, Plan
from common.porting.table import table


def info(*shape):
    return ArrayInfo(shape, "float64")


def numbers(infos, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=info.shape) for n, info in infos.items()}


def transformer():
    """Makes a plan with fused, stacked, shifted and constant arrays."""
    source, target, layouts = {}, {}, {}
    for i in range(12):
        fused = f"encoder.{i}.attn.qkv.weight"
        source[fused] = info(12, 4)
        for k, word in enumerate("qkv"):
            name = f"layer.{i + 1}.attention.{word}_proj.kernel"
            target[name] = info(4, 4)
            pick = Slice(0, 4 * k, 4 * k + 4)
            layouts[name] = Layout.of(fused, (12, 4), pick, Transpose((1, 0)))
        norm, scale = f"encoder.{i}.ln{i + 1}.w", f"layer.{i + 1}.norm.scale"
        source[norm], target[scale] = info(4), info(4)
        layouts[scale] = Layout.of(norm, (4,))
    source["stack.w"] = info(3, 4, 5)
    for i in range(3):
        target[f"s.{i}.w"] = info(5, 4)
        steps = Index(0, i), Transpose((1, 0))
        layouts[f"s.{i}.w"] = Layout.of("stack.w", (3, 4, 5), *steps)
    source["mask_token"], target["head"] = info(3), info(2)
    target["eps"] = info(2)
    return Plan(
        layouts,
        source,
        target,
        ignored=("mask_token",),
        kept=("head",),
        notes=("norm1: eps 1e-5 against 1e-6",),
        derived={"eps": 0.5},
    )


def test_rules_are_grouped():
    assert transformer().rules.splitlines() == [
        "# norm1: eps 1e-5 against 1e-6",
        "encoder.{i}.attn.qkv.weight -> split -> transpose -> "
        "layer.{i+1}.attention.{q,k,v}_proj.kernel",
        "encoder.{i}.ln{i+1}.w -> layer.{i+1}.norm.scale",
        "stack.w -> unstack -> transpose -> s.{i}.w",
        "derive(0.5) -> eps",
        "mask_token -> nothing",
        "nothing -> head",
    ]


def test_table():
    lines = table(transformer(), 120).splitlines()
    assert " ".join(lines[0].split()) == (
        "encoder.{i}.attn.qkv.weight (12, 4) -> split in 3, transpose -> "
        "layer.{i+1}.attention.{q,k,v}_proj.kernel (4, 4) (12x)"
    )
    assert lines[-3:] == [
        "ignored: mask_token (3,)",
        "kept: head (2,)",
        "note: norm1: eps 1e-5 against 1e-6",
    ]
    assert "derived: 0.5" in lines[-4]


def test_rules_give_the_plan_back():
    plan = transformer()
    assert Plan.parse(plan.rules, plan.source, plan.target) == plan


def test_rules_serve_both_directions():
    plan = transformer()
    back = Plan.parse(plan.rules, plan.target, plan.source)
    assert back == plan.inverse()
    assert Plan.parse(back.rules, plan.target, plan.source) == back
    arrays = numbers(plan.source)
    again = back.apply(plan.apply(arrays))
    assert again.keys() == arrays.keys() - {"mask_token"}
    assert all(np.array_equal(again[n], arrays[n]) for n in again)


WORDS = ["a", "b", "w1", "w2", "conv10", "0", "1", "2", "q-k", "x y", "[z]"]
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(".".join)


def draw_plan(draw):
    """Draws a plan whose sources are copied, cut, joined or ignored."""
    names = draw(st.lists(NAMES, min_size=4, max_size=16, unique=True))
    shape = 4, 2
    source, target, layouts = {}, {}, {}
    ignored, kept, derived = [], [], {}
    cuts = {
        "split": [Slice(0, 0, 2), Slice(0, 2, 4)],
        "uneven": [Slice(0, 0, 1), Slice(0, 1, 4)],
        "unstack": [Index(1, 0), Index(1, 1)],
    }
    turn = st.sampled_from(
        [(), (Transpose((1, 0)),), (Reshape((8,)),), (Reshape((2, 4)),)]
    )
    kinds = st.sampled_from(
        ["copy", "join", "mixed", "ignore", "keep", "derive", *cuts]
    )
    while names:
        name, kind = names.pop(), draw(kinds)
        if kind == "ignore":
            source[name] = info(*shape)
            ignored.append(name)
        elif kind == "keep":
            target[name] = info(*shape)
            kept.append(name)
        elif kind == "derive":
            target[name] = info(*shape)
            derived[name] = draw(st.sampled_from([0.1, -float("inf"), 3.0]))
        elif kind in cuts and len(names) > 1:
            source[name] = info(*shape)
            for step in cuts[kind]:
                end = names.pop()
                turned = kind == "split" and draw(st.booleans())
                steps = (Transpose((1, 0)),) if turned else ()
                layouts[end] = Layout.of(name, shape, step, *steps)
        elif kind in ("join", "mixed") and len(names) > 1:
            layout = Layout(
                (
                    Layout.of(names.pop(), shape, Transpose((1, 0))),
                    Layout.of(names.pop(), (2, 4))
                    if kind == "mixed"
                    else Layout.of(names.pop(), shape, Transpose((1, 0))),
                ),
                draw(st.sampled_from([Stack(0, 2), Concatenate(0, (2, 2))])),
            )
            if layout.shape == (4, 4):
                layout = layout.then(Transpose((1, 0)))
            source |= {s.name: info(*s.shape) for s in layout.sources}
            layouts[name] = layout
        else:
            source[name] = info(*shape)
            layouts[name] = Layout.of(name, shape, *draw(turn))
        target |= {n: info(*layouts[n].shape) for n in layouts}
    return Plan(
        layouts, source, target, tuple(ignored), tuple(kept), derived=derived
    )


@given(st.data())
def test_any_rules_give_the_plan_back(data):
    plan = draw_plan(data.draw)
    assert Plan.parse(plan.rules, plan.source, plan.target) == plan
    back = plan.inverse()
    assert Plan.parse(back.rules, plan.target, plan.source) == back
    arrays = numbers(plan.source)
    again = back.apply(plan.apply(arrays))
    assert again.keys() == arrays.keys() - set(plan.ignored)
    assert all(np.array_equal(again[n], arrays[n]) for n in again)


def plan_of(source, target, layouts, **options):
    ours = {name: info(*shape) for name, shape in source.items()}
    theirs = {name: info(*shape) for name, shape in target.items()}
    return Plan(layouts, ours, theirs, **options)


def test_an_array_without_a_rule():
    with pytest.raises(
        ValueError,
        match=r"source 'b' \(3,\): got no rule, expected one;\s+target 'c' "
        r"\(2,\): got no rule, .*list them in `ignore` or `keep`",
    ):
        plan_of(
            {"a": (2,), "b": (3,)},
            {"a": (2,), "c": (2,)},
            {"a": Layout.of("a", (2,))},
        )


def test_an_unknown_name():
    with pytest.raises(ValueError, match="source 'z': got a name that the"):
        plan_of({}, {"a": (2,)}, {"a": Layout.of("z", (2,))})


def test_a_wrong_shape():
    with pytest.raises(
        ValueError, match=r"target 'a': got the shape \(2,\), expected \(3,\)"
    ):
        plan_of({"b": (2,)}, {"a": (3,)}, {"a": Layout.of("b", (2,))})


def test_two_rules_for_an_array():
    with pytest.raises(ValueError, match="target 'a': got several rules"):
        plan_of(
            {"b": (2,)}, {"a": (2,)}, {"a": Layout.of("b", (2,))}, kept=("a",)
        )


def test_lost_elements():
    half = Layout.of("b", (2,), Slice(0, 0, 1))
    with pytest.raises(ValueError, match="got only pieces of it in"):
        plan_of({"b": (2,)}, {"a": (1,)}, {"a": half})
    assert plan_of({"b": (2,)}, {"a": (1,)}, {"a": half}, ignored=("b",))


def test_a_derived_value_of_another_shape():
    with pytest.raises(
        ValueError, match=r"got a value of the shape \(3,\), expected \(2,\)"
    ):
        plan_of({}, {"a": (2,)}, {}, derived={"a": [1, 2, 3]})


def test_apply_without_a_source():
    plan = plan_of({"b": (2,)}, {"a": (2,)}, {"a": Layout.of("b", (2,))})
    with pytest.raises(ValueError, match=r"arrays: got nothing for \['b'\]"):
        plan.apply({})


def test_a_join_of_nested_parts():
    pair = Layout(
        (Source("a.0", (2,)), Source("a.1", (2,))), Concatenate(0, (2, 2))
    )
    plan = plan_of(
        {"a.0": (2,), "a.1": (2,), "b": (4,)},
        {"c": (2, 4)},
        {"c": Layout((pair, Source("b", (4,))), Stack(0, 2))},
    )
    assert plan.rules == "[[a.0; a.1] -> concatenate; b] -> stack -> c"
    assert Plan.parse(plan.rules, plan.source, plan.target) == plan


def test_pieces_that_do_not_start_at_the_first_name():
    weights = Index(0, 0), Index(0, 1)
    plan = plan_of(
        {"a": (2, 3), "b": (3,)},
        {"c.1.w": (3,), "c.2.w": (3,), "c.3.w": (3,)},
        {
            "c.1.w": Layout.of("a", (2, 3), weights[0]),
            "c.2.w": Layout.of("a", (2, 3), weights[1]),
            "c.3.w": Layout.of("b", (3,)),
        },
    )
    assert plan.rules.splitlines()[0] == "a -> unstack -> c.{i+1=0..1}.w"
    assert Plan.parse(plan.rules, plan.source, plan.target) == plan


def test_a_choice_beside_an_index_that_only_the_target_has():
    plan = plan_of(
        {f"stack.{word}": (2, 3) for word in "qk"},
        {f"layer.{i}.{word}": (3,) for i in range(2) for word in "qk"},
        {
            f"layer.{i}.{word}": Layout.of(
                f"stack.{word}", (2, 3), Index(0, i)
            )
            for i in range(2)
            for word in "qk"
        },
    )
    rule = "stack.{q,k} -> unstack -> layer.{i}.{q,k}"
    assert Plan.parse(rule, plan.source, plan.target) == plan
    assert Plan.parse(rule, plan.target, plan.source) == plan.inverse()
