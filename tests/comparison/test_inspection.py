"""What a traced program says of itself."""

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from common.comparison.inspection import (
    Inspection,
    draws_of,
    inspect,
    inspect_arrays,
    is_rounded,
    precision_of,
    require_draws_of_one,
)

X = jax.ShapeDtypeStruct((3,), "float64")
LABELS = ("equinox", "flax")
WIDE = Inspection("float64", "", None)
SINGLE = Inspection("float32", "a.py:1 f", None)
HALF = Inspection("bfloat16", "b.py:2 g", None)
DRAWS = Inspection("float64", "", "c.py:3 h")


def inspected(function):
    return inspect(jax.make_jaxpr(function)(X))


def casts(x):
    return x.astype("float32").sum()


def draws(x):
    return x + jr.normal(jr.key(0), x.shape)


def test_a_program_without_casts_and_draws():
    assert inspected(jnp.sin) == WIDE


def test_a_cast_is_found_also_in_an_inner_program():
    for function in (casts, jax.jit(casts)):
        found = inspected(function)
        assert found.dtype == "float32"
        assert found.cast.startswith("test_inspection.py:")
        assert found.draw is None


def test_a_scalar_is_no_cast():
    def scalar(x):
        return x * x.sum().astype("float32")

    assert inspected(scalar).dtype == "float64"


def test_a_draw_is_found_also_in_a_loop():
    def loop(x):
        return jax.lax.scan(lambda c, _: (draws(c), None), x, length=2)[0]

    for function in (draws, loop):
        found = inspected(function).draw
        assert found is not None and found.endswith(" draws")


TABLE = jnp.asarray([0.1, 0.5], "float32")


def test_a_rounded_array_from_outside_limits_the_precision():
    def direct(x):
        return x[:2] * TABLE

    for function in (direct, jax.jit(direct)):
        found = inspected(function)
        assert found.dtype == "float32"
        assert found.cast == "a constant outside of the model"


@pytest.mark.parametrize(
    ("x", "rounded"),
    [
        (TABLE, True),
        (TABLE.astype("bfloat16"), True),
        (TABLE.astype("float64"), False),
        (jnp.asarray([0, 1, 0.5, -2, jnp.inf], "float32"), False),
        (jnp.asarray([0, -1e30], "float32"), False),
        (jnp.asarray([0, 1], "bfloat16"), False),
        (jnp.arange(3), False),
        (jnp.zeros((0,), "float32"), False),
    ],
)
def test_rounded_numbers_are_told_from_exact_ones(x, rounded):
    assert is_rounded(x) is rounded


def test_the_narrowest_array_counts():
    arrays = {"a": TABLE, "b": TABLE.astype("bfloat16"), "c": jnp.arange(2)}
    assert inspect_arrays(arrays) == Inspection(
        "bfloat16", "the array b", None
    )
    assert inspect_arrays({"c": jnp.arange(2)}) == WIDE


@pytest.mark.parametrize(
    ("pair", "own", "precision"),
    [
        ((WIDE, WIDE), "float32", "float64"),
        # A cast to the models' own dtype, such as that of a softmax.
        ((SINGLE, WIDE), "float32", "float32"),
        # A cast that only one side has is a mismatch, which the report shows.
        ((SINGLE, WIDE), "float64", "float64"),
        ((WIDE, HALF), "float32", "float64"),
        ((SINGLE, HALF), "float32", "float32"),
        ((HALF, HALF), "float32", "bfloat16"),
        ((SINGLE, SINGLE), "float64", "float32"),
    ],
)
def test_the_precision_of_a_comparison(pair, own, precision):
    found, notes = precision_of(LABELS, [[x] for x in pair], "float64", own)
    assert found == precision
    assert notes == [
        f"precision ceiling of {label}: {x.dtype} at {x.cast}"
        for label, x in zip(LABELS, pair, strict=True)
        if x is not WIDE
    ]


def test_the_ceiling_is_stated_in_float64_only():
    found = precision_of(LABELS, [[SINGLE], [HALF]], "float32", "float32")
    assert found == ("float32", [])


def test_the_narrowest_program_of_a_model_counts():
    found, _ = precision_of(
        LABELS, [[WIDE, SINGLE], [WIDE]], "float64", "float32"
    )
    assert found == "float32"


def test_random_models_are_named():
    assert draws_of(LABELS, [WIDE, DRAWS], "training") == [
        "flax draws random numbers in training mode, at c.py:3 h"
    ]
    require_draws_of_one([WIDE, DRAWS])
    with pytest.raises(ValueError, match="at c.py:3 h on the left and at c"):
        require_draws_of_one([DRAWS, DRAWS])
