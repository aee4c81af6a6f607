"""Layouts invert, compose and simplify without changing what they make."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.layouts import (
    Cast,
    Concatenate,
    Flip,
    Index,
    KeyData,
    Layout,
    Reshape,
    Slice,
    Source,
    Stack,
    Transpose,
    WrapKeyData,
    compose,
    inverse,
    invert,
    simplification,
    simplify,
)

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def numbers(shape):
    return np.arange(math.prod(shape)).reshape(shape)


def draw_steps(draw, shape, *, picks):
    """Draws steps that fit a shape one after another."""
    found = []
    for _ in range(draw(st.integers(0, 6))):
        axes, axis = range(len(shape)), draw(st.integers(0, len(shape) - 1))
        kinds = ["transpose", "reshape", "flip", "cast"]
        kind = draw(st.sampled_from(kinds + ["slice", "index"] * picks))
        if kind == "transpose":
            step = Transpose(tuple(draw(st.permutations(axes))))
        elif kind == "reshape":
            merged = (*shape[:axis], math.prod(shape[axis:]))
            other = draw(st.sampled_from([merged, shape[::-1], (1, *shape)]))
            step = Reshape(other)
        elif kind == "flip":
            step = Flip(tuple(draw(st.sets(st.sampled_from(axes)))))
        elif kind == "cast":
            step = Cast("int64", "float64")
        elif kind == "slice" or len(shape) == 1:
            start = draw(st.integers(0, shape[axis] - 1))
            stop = draw(st.integers(start + 1, shape[axis]))
            step = Slice(axis, start, stop)
        else:
            step = Index(axis, draw(st.integers(0, shape[axis] - 1)))
        found.append(step)
        shape = step.output(shape)
    return tuple(found)


# --- one array --------------------------------------------------------------


@given(st.data())
def test_an_inverse_leads_back(data):
    shape = data.draw(SHAPES)
    layout = Layout.of("x", shape, *draw_steps(data.draw, shape, picks=False))
    x = numbers(shape)
    back = inverse(layout)
    assert np.array_equal(back(layout(x)), x)
    assert simplify(back.substitute({"x": layout})) == Layout.of("x", shape)


@given(st.data())
def test_simplification_keeps_the_result(data):
    shape = data.draw(SHAPES)
    layout = Layout.of("x", shape, *draw_steps(data.draw, shape, picks=True))
    short, x = simplify(layout), numbers(shape)
    assert short.shape == layout.shape == layout(x).shape
    assert np.array_equal(short(x), layout(x))


SIMPLE = {
    "transposes": (
        (2, 3, 4),
        [Transpose((1, 2, 0)), Transpose((2, 0, 1))],
        "(2, 3, 4)",
    ),
    "reshapes": (
        (2, 3, 4),
        [Reshape((6, 4)), Reshape((2, 12))],
        "(2, 3, 4) -> reshape(2, 12)",
    ),
    "flips": ((2, 3), [Flip((0, 1)), Flip((1,))], "(2, 3) -> flip(0,)"),
    "a flip between transposes": (
        (2, 3),
        [Transpose((1, 0)), Flip((0,)), Transpose((1, 0))],
        "(2, 3) -> flip(1,)",
    ),
    "a transpose of axes of size 1": (
        (1, 3),
        [Transpose((1, 0))],
        "(1, 3) -> reshape(3, 1)",
    ),
    "casts": (
        (2,),
        [Cast("uint32", "int32"), Flip((0,)), Cast("int32", "uint32")],
        "(2,) -> flip(0,)",
    ),
    "key data": (
        (2,),
        [KeyData("threefry2x32"), WrapKeyData("threefry2x32")],
        "(2,)",
    ),
    "a slice goes first": (
        (32, 96),
        [Transpose((1, 0)), Slice(0, 0, 32)],
        "(32, 96) -> split[:, 0:32] -> transpose",
    ),
    "slices": (
        (9,),
        [Slice(0, 2, 8), Slice(0, 1, 3)],
        "(9,) -> split[3:5]",
    ),
}


@pytest.mark.parametrize("case", SIMPLE)
def test_simplest_form(case):
    shape, chain, expected = SIMPLE[case]
    assert str(simplify(Layout.of("", shape, *chain))) == expected


def test_a_layout_prints_itself():
    layout = Layout.of("", (32, 96), Transpose((1, 0)), Slice(0, 0, 32))
    assert str(layout) == "(32, 96) -> transpose -> split[0:32]"
    parts = (Source("a", (2, 3)), Source("b", (2, 3)))
    layout = Layout(parts, Concatenate(1, (3, 3)), (Transpose((1, 0)),))
    assert str(layout) == (
        "[a (2, 3); b (2, 3)] -> concatenate[axis 1] -> transpose"
    )


def test_a_wrong_rule_of_simplification_is_seen(monkeypatch):
    """Merging two transposes in the wrong order changes the result."""

    def merge(shape, first, second):
        del shape
        return [Transpose(tuple(second.axes[axis] for axis in first.axes))]

    layout = Layout.of(
        "x", (2, 3, 4), Transpose((1, 2, 0)), Transpose((0, 2, 1))
    )
    x = numbers((2, 3, 4))
    assert np.array_equal(simplify(layout)(x), layout(x))
    monkeypatch.setattr(simplification, "_simplify_two", merge)
    assert not np.array_equal(simplify(layout)(x), layout(x))


# --- kinds of arrays --------------------------------------------------------


def test_layouts_act_on_all_kinds_of_arrays():
    layout = Layout.of(
        "x", (2, 3), Transpose((1, 0)), Flip((0,)), Reshape((6,))
    )
    x = numbers((2, 3)).astype("float32")
    assert isinstance(layout(x), np.ndarray)
    assert np.array_equal(layout(jnp.asarray(x)), layout(x))
    assert np.array_equal(jax.jit(layout)(x), layout(x))
    struct = layout(jax.ShapeDtypeStruct((2, 3), "float32"))
    assert (struct.shape, struct.dtype) == ((6,), "float32")
    both = Layout((Source("a", (2,)), Source("b", (2,))), Stack(0, 2))
    assert isinstance(both.apply({"a": x[0, :2], "b": x[1, :2]}), np.ndarray)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_cross_as_their_data(impl):
    keys = jr.split(jr.key(1, impl=impl), 3)
    layout = Layout.of("k", (3,), KeyData(impl))
    data = layout(keys)
    assert (data.dtype, data.shape) == (np.uint32, layout.shape)
    assert jnp.array_equal(inverse(layout)(np.asarray(data)), keys)


# --- errors -----------------------------------------------------------------

MISFITS = {
    "transpose": ((2, 3), Transpose((0, 1, 2)), "one of 3 axes"),
    "reshape": ((2, 3), Reshape((5,)), "one of 5 elements"),
    "flip": ((2, 3), Flip((2,)), "one with an axis 2"),
    "slice": ((2, 3), Slice(1, 0, 4), "one of 4 or more along axis 1"),
    "index": ((2, 3), Index(0, 2), "one of more than 2 along axis 0"),
    "key data": (
        (3,),
        WrapKeyData("threefry2x32"),
        r"one that ends in \(2,\)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_step_that_does_not_fit_is_refused(case):
    shape, step, expected = MISFITS[case]
    expected = rf"got the shape .*, expected {expected}"
    with pytest.raises(ValueError, match=expected):
        Layout.of("x", shape, step)


def test_an_array_of_another_shape_is_refused():
    layout = Layout.of("weight", (2, 3), Transpose((1, 0)))
    expected = (
        r"^layout of 'weight': got the shape \(3, 2\), expected \(2, 3\)\. "
        r"Pass an array of that shape\.$"
    )
    with pytest.raises(ValueError, match=expected):
        layout(numbers((3, 2)))


def test_parts_that_do_not_fit_together_are_refused():
    parts = (Source("a", (2, 3)), Source("b", (3, 3)))
    for join in (Concatenate(1, (3, 3)), Stack(0, 2)):
        with pytest.raises(ValueError, match=r"got the shapes .*, expected"):
            Layout(parts, join)
    with pytest.raises(ValueError, match="got 2 inputs and no join"):
        Layout(parts)


def test_a_piece_alone_has_no_inverse():
    layout = Layout.of("x", (4,), Slice(0, 0, 3))
    expected = r"got only pieces of it in \['x'\], expected pieces that cover"
    with pytest.raises(ValueError, match=expected):
        inverse(layout)


# --- several arrays ---------------------------------------------------------


@given(st.data())
def test_pieces_are_put_together_again(data):
    shape = data.draw(SHAPES)
    axis = data.draw(st.integers(0, len(shape) - 1))
    size, x = shape[axis], numbers(shape)
    if data.draw(st.booleans()):
        picks = [Index(axis, i) for i in range(size)]
    else:
        cuts = sorted(data.draw(st.sets(st.integers(0, size))) | {0, size})
        pairs = zip(cuts[:-1], cuts[1:], strict=True)
        picks = [Slice(axis, start, stop) for start, stop in pairs]
    layouts = {
        str(i): Layout.of("x", shape, pick) for i, pick in enumerate(picks)
    }
    if data.draw(st.booleans()):
        layouts = {
            name: layout.then(Flip(tuple(range(len(layout.shape)))))
            for name, layout in layouts.items()
        }
    pieces = {name: layout(x) for name, layout in layouts.items()}
    back = invert(layouts)
    assert np.array_equal(back["x"].apply(pieces), x)
    # Through the whole array, every piece is itself again.
    for name, layout in compose(back, layouts).items():
        assert layout == Layout.of(name, pieces[name].shape)


NESTED = {
    "stack of fused": lambda: {
        f"{i}{j}": Layout.of(
            "x", (2, 6, 4), Index(0, i), Slice(0, 2 * j, 2 * j + 2)
        )
        for i in range(2)
        for j in range(3)
    },
    "interleaved": lambda: {
        str(i): Layout.of(
            "x",
            (12, 4),
            Reshape((2, 6, 4)),
            Slice(1, 2 * i, 2 * i + 2),
            Reshape((4, 4)),
            Transpose((1, 0)),
        )
        for i in range(3)
    },
    "tied": lambda: {
        "a": Layout.of("x", (6, 4), Transpose((1, 0))),
        "b": Layout.of("x", (6, 4), Reshape((3, 8))),
    },
}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_pieces_of_pieces_are_put_together_again(make):
    layouts = make()
    (source,) = {s for layout in layouts.values() for s in layout.sources}
    x = np.arange(48.0)[: np.prod(source.shape)].reshape(source.shape)
    pieces = {name: layout(x) for name, layout in layouts.items()}
    assert np.array_equal(invert(layouts)["x"].apply(pieces), x)


@pytest.mark.parametrize("name", ["stack of fused", "interleaved"])
def test_a_missing_piece_of_a_piece_is_named(name):
    layouts = NESTED[name]()
    layouts.popitem()
    with pytest.raises(ValueError, match="got only pieces of it"):
        invert(layouts)


def test_the_gates_of_an_lstm_are_slices_of_one_array():
    gates = [Source(name, (2, 4)) for name in "ifgo"]
    joined = Layout(
        tuple(gates), Concatenate(1, (4,) * 4), (Transpose((1, 0)),)
    )
    back = invert({"weight_ih": joined})
    assert str(back["f"]) == "weight_ih (16, 2) -> split[4:8] -> transpose"
    assert compose({"weight_ih": joined}, back) == {
        source.name: Layout((source,)) for source in gates
    }
