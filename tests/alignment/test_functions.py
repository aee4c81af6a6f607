"""Tests `align` on small models whose mapping is known, and on faults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import diff
from common.alignment import AlignmentError, align
from common.native import NativeModel
from common.porting import Plan, port
from tests.alignment.models import (
    ATTENTION,
    LAYER,
    TOKENS,
    WIDTH,
    EquinoxModel,
    aligned,
    fused,
    inputs,
    interleaved,
    layer,
    left,
    right,
    separate,
    with_heads,
    without_residual,
)


def assert_mapped(found, left_model, right_model, xs):
    """Asserts that the left arrays make the right model equal the left."""
    assert found.proved, str(found)
    first, second = NativeModel(left_model), NativeModel(right_model)
    arrays = {
        name: jnp.asarray(x, jnp.float64) for name, x in first.arrays().items()
    }
    made = {name: x.apply(arrays) for name, x in found.layouts.items()}
    np.testing.assert_array_almost_equal(
        first.apply(arrays, xs)[0], second.apply(made, xs)[0], decimal=12
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fused, separate),
        pytest.param(separate, interleaved, marks=pytest.mark.exhaustive),
        pytest.param(interleaved, fused, marks=pytest.mark.exhaustive),
        pytest.param(fused, with_heads, marks=pytest.mark.exhaustive),
        (with_heads, interleaved),
    ],
)
def test_attention_is_found_however_it_is_written(one, other):
    xs = inputs(2, TOKENS, WIDTH)
    shapes = ATTENTION[one], ATTENTION[other]
    found, first, second = aligned((one, other), shapes, xs)
    assert_mapped(found, first, second, xs)
    assert found.agreement < 1e-14
    plan = found.plan
    assert Plan.parse(found.rules, plan.source, plan.target) == plan
    back = plan.inverse().inverse()
    arrays = NativeModel(first).arrays()
    for name, x in plan.apply(arrays).items():
        np.testing.assert_array_equal(x, back.layouts[name].apply(arrays))
    # A key bias has no effect, because softmax does not change.
    assert len(found.eliminated) == 1 or "qkv" not in str(found.eliminated)


def test_a_square_array_has_an_orientation():
    def transposed(p, x):
        return layer({**p, "w": p["w"].T}, x)

    xs = inputs(4, 6)
    found, first, second = aligned((layer, transposed), (LAYER, LAYER), xs)
    assert_mapped(found, first, second, xs)
    assert str(found.layouts["p.w"]) == "p.w (6, 6) -> transpose"
    assert "p.w -> transpose -> p.w" in found.rules.splitlines()


def test_models_that_are_not_equal_are_refused_with_the_place():
    with pytest.raises(AlignmentError, match="expected equal ones") as caught:
        aligned((layer, without_residual), (LAYER, LAYER), inputs(4, 6))
    message = str(caught.value)
    assert "add, float64[4,6]" in message
    assert "models.py" in message
    assert caught.value.alignment.status == "refused"
    with pytest.raises(ValueError, match="plan: got models that were"):
        _ = caught.value.alignment.plan
    assert not caught.value.alignment.proved


def test_a_numerical_difference_is_named_on_both_sides():
    def exact(p, x):
        return jax.nn.gelu(x @ p["w"], approximate=False) @ p["v"]

    def approximate(p, x):
        return jax.nn.gelu(x @ p["w"], approximate=True) @ p["v"]

    shapes = {"w": (6, 6), "v": (6, 3)}
    found, *_ = aligned((exact, approximate), (shapes, shapes), inputs(4, 6))
    assert found.status == "mapped, but differs"
    assert not found.proved
    assert set(found.layouts) == {"p.w", "p.v"}
    text = str(found)
    assert "exact" in text and "approximate" in text
    assert "mapped, but differs: with random weights" in text


def test_what_is_equal_at_the_symmetric_point_only_is_refused():
    def plain(p, x):
        return x @ p["a"] + x @ p["b"]

    def cubic(p, x):
        a, b = x @ p["a"], x @ p["b"]
        return a + b + (a - b) ** 3

    shapes = {"a": (6, 6), "b": (6, 6)}
    with pytest.raises(AlignmentError, match="both hold random values") as e:
        aligned((plain, cubic), (shapes, shapes), inputs(4, 6))
    assert "cubic" in str(e.value)


def test_equal_branches_are_a_free_choice():
    def branches(p, x):
        return jnp.tanh(x @ p["a"]) + jnp.tanh(x @ p["b"])

    shapes = {"a": (6, 6), "b": (6, 6)}
    xs = inputs(4, 6)
    found, first, second = aligned((branches, branches), (shapes, shapes), xs)
    assert_mapped(found, first, second, xs)
    (choice,) = found.choices
    assert set(choice.lefts) == {"p.a", "p.b"}
    assert "either is right: " in str(found)


def tied(p, x):
    return jnp.tanh(jnp.tanh(x @ p["e"]) @ p["w"]) @ p["e"].T


def untied(p, x):
    return jnp.tanh(jnp.tanh(x @ p["e"]) @ p["w"]) @ p["h"]


TIED = {"e": (7, 5), "w": (5, 5)}
UNTIED = {**TIED, "h": (5, 7)}


def test_a_tied_array_makes_two():
    xs = inputs(4, 7)
    found, first, second = aligned((tied, untied), (TIED, UNTIED), xs)
    assert_mapped(found, first, second, xs)
    assert found.tied == (("p.e", ("p.e", "p.h")),)


def test_two_arrays_make_a_tied_one_if_they_are_equal():
    found, *_ = aligned((untied, tied), (UNTIED, TIED), inputs(4, 7))
    assert found.proved
    assert found.tied == (("p.e", ("p.e", "p.h")),)


def lstm(order):
    def run(p, x):
        h = c = jnp.zeros(5)
        for t in range(3):
            z = p["wi"] @ x[t] + p["wh"] @ h + p["b"]
            gates = dict(zip(order, jnp.split(z, 4), strict=True))
            c = jax.nn.sigmoid(gates["f"]) * c
            c += jax.nn.sigmoid(gates["i"]) * jnp.tanh(gates["g"])
            h = jax.nn.sigmoid(gates["o"]) * jnp.tanh(c)
        return h

    return run


def test_gates_in_another_order_are_found():
    shapes = {"wi": (20, 2), "wh": (20, 5), "b": (20,)}
    xs = inputs(2, 3, 2)
    functions = lstm("ifgo"), lstm("fiog")
    found, first, second = aligned(functions, (shapes, shapes), xs)
    assert_mapped(found, first, second, xs)
    assert found.cost.cuts < 10


def channels_first(p, x):
    y = jax.lax.conv(x[None], p["k"], (1, 1), "SAME")[0]
    return jax.nn.relu(y).reshape(-1) @ p["w"]


def channels_last(p, x):
    numbers = "NHWC", "HWIO", "NHWC"
    x = x.transpose(1, 2, 0)[None]
    y = jax.lax.conv_general_dilated(
        x, p["k"], (1, 1), "SAME", dimension_numbers=numbers
    )[0]
    return jax.nn.relu(y).reshape(-1) @ p["w"]


def test_a_flatten_in_another_order_is_a_transposition():
    shapes = (
        {"k": (6, 3, 3, 3), "w": (72, 7)},
        {"k": (3, 3, 3, 6), "w": (72, 7)},
    )
    xs = inputs(2, 3, 3, 4)
    functions = channels_first, channels_last
    found, first, second = aligned(functions, shapes, xs)
    assert_mapped(found, first, second, xs)
    assert (
        "p.w -> reshape(6, 12, 7) -> transpose(1, 0, 2) -> reshape(72, 7) "
        "-> p.w"
    ) in found.rules.splitlines()


def test_flipped_kernels_are_found():
    def flipped(p, x):
        kernel = p["k"][:, :, ::-1, ::-1]
        return jax.lax.conv(x[None], kernel, (1, 1), "SAME")[0]

    def plain(p, x):
        return jax.lax.conv(x[None], p["k"], (1, 1), "SAME")[0]

    shapes = {"k": (4, 2, 3, 3)}
    xs = inputs(2, 2, 5, 5)
    found, first, second = aligned((plain, flipped), (shapes, shapes), xs)
    assert_mapped(found, first, second, xs)


def scaled(p, x):
    return x @ p["w"] * p["scale"]


def scaled_by_constant(p, x):
    return x @ p["w"] * jnp.arange(1, 7)


def model_with_table(function=scaled, **more):
    arrays = left(function, w=(6, 6), **more).p
    return EquinoxModel({**arrays, "scale": jnp.arange(1.0, 7.0)}, function)


def test_arrays_of_one_side_are_listed():
    first = model_with_table(mask=(4,))
    second = right(scaled_by_constant, w=(6, 6))
    found = align(first, second, inputs(4, 6), progress=False)
    assert found.proved
    assert found.unused == (("p.mask",), ())
    assert found.left_over == ("p.scale",)
    (note,) = found.notes
    assert note.startswith("left: p.scale has an effect")


def test_constants_can_be_pinned():
    first = model_with_table()
    second = right(scaled_by_constant, w=(6, 6))
    found = align(first, second, inputs(4, 6), constants=("*.scale",))
    assert found.proved
    assert found.constants == (("p.scale",), ())
    assert not found.left_over


def test_an_array_that_numpy_converts_is_a_constant():
    def converted(p, x):
        return x @ p["w"] * np.asarray(p["scale"])

    first = model_with_table(converted)
    second = right(scaled_by_constant, w=(6, 6))
    found = align(first, second, inputs(4, 6))
    assert found.proved
    assert found.constants == (("p.scale",), ())
    assert "p.scale" in found.notes[0]


def test_dead_units_hide_no_array():
    def dead(p, x):
        return jax.nn.relu(x @ p["w"] - 2 * p["b"]) @ p["v"]

    xs = inputs(4, 6)
    found, first, second = aligned((dead, dead), (LAYER, LAYER), xs)
    assert_mapped(found, first, second, xs)


def test_the_number_of_cuts_has_a_cap():
    def product(p, x):
        return x @ p["a"] @ p["b"]

    def single(p, x):
        return x @ p["a"]

    with pytest.raises(AlignmentError) as caught:
        aligned(
            (product, single),
            ({"a": (4, 5), "b": (5, 6)}, {"a": (4, 6)}),
            inputs(3, 4),
            max_cuts=3,
        )
    assert caught.value.alignment.cost.cuts <= 4
    assert "left ['p.a', 'p.b'], right ['p.a']" in str(caught.value)


def test_symmetric_weights_need_no_mapping():
    def shifted(p, x):
        return (x + jnp.tanh(x @ p["w"] + p["b"])) @ p["v"] + 1e-6

    first, second = left(layer, **LAYER), right(shifted, **LAYER)
    xs = inputs(4, 6)
    found = diff(first, second, xs, weights="symmetric")
    assert not found.ok
    assert found.origins[0].right is not None
    same = diff(first, second, xs, weights="symmetric", tolerance=1e-3)
    assert same.ok
    assert diff(first, right(layer, **LAYER), xs, weights="symmetric").ok


@pytest.mark.parametrize("dtype", ["float32", None])
def test_symmetric_weights_have_the_dtype_of_the_comparison(dtype):
    xs = inputs(4, 6).astype(np.float32)
    model = left(layer, **LAYER)
    arrays = NativeModel(model).arrays()
    with jax.enable_x64(False):
        narrow = NativeModel(model).with_arrays(
            {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
        )
        found = diff(narrow, narrow, xs, weights="symmetric", dtype=dtype)
    assert found.ok
    for record in found.matching.records:
        dtypes = {node.dtype for node in record.nodes}
        assert "float32" in dtypes and "float64" not in dtypes
    with pytest.raises(ValueError, match="dtype: got 'int8', expected"):
        diff(model, model, xs, weights="symmetric", dtype="int8")


def test_port_takes_an_alignment_as_its_rules():
    first, second = left(layer, **LAYER), right(layer, **LAYER)
    found = align(first, second, inputs(4, 6), progress=False)
    made = port(first, into=second, rules=found)
    for name, x in NativeModel(made).arrays().items():
        np.testing.assert_array_equal(x, NativeModel(first).arrays()[name])


def test_the_models_are_not_changed():
    first, second = left(layer, **LAYER), right(layer, **LAYER)
    before = [NativeModel(m).arrays() for m in (first, second)]
    align(first, second, inputs(4, 6), progress=False)
    for model, old in zip((first, second), before, strict=True):
        for name, x in NativeModel(model).arrays().items():
            np.testing.assert_array_equal(x, old[name])
            assert x.dtype == old[name].dtype


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda a, b, xs: align(a, b),
            ValueError,
            "inputs of the left model: got None, expected a batch",
        ),
        (
            lambda a, b, xs: align(a, b, xs, constants=("nothing",)),
            ValueError,
            r"constants: got \['nothing'\], expected names",
        ),
        (
            lambda a, b, xs: align(a, left(lambda p, x: x, w=(2,)), xs),
            ValueError,
            "outputs: got arrays of the shapes",
        ),
        (
            lambda a, b, xs: align(a, b, xs[:, :5]),
            TypeError,
            "left model: got TypeError while tracing .*`left_call`",
        ),
        (
            lambda a, b, xs: diff(a, b, xs, weights="random"),
            ValueError,
            "weights: got 'random', expected one of 'symmetric'",
        ),
        (
            lambda a, b, xs: diff(a, b, xs, left_call=None),
            TypeError,
            r"diff: got the arguments \['left_call'\], expected them with",
        ),
        (
            lambda a, b, xs: diff(a, b, xs, xs, weights="symmetric"),
            ValueError,
            "args: got 2 arguments, expected one batch",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    first, second = left(layer, **LAYER), right(layer, **LAYER)
    with pytest.raises(error, match=message):
        call(first, second, inputs(4, 6))
