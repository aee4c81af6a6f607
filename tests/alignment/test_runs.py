"""Tests of the precision in which models are run."""

import jax
import jax.numpy as jnp
import pytest

from common.alignment import AlignmentError, align
from tests.alignment.models import (
    LAYER,
    EquinoxModel,
    aligned,
    inputs,
    layer,
    left,
    right,
    without_residual,
)


def cast_inside(function, dtype):
    def narrow(p, x):
        p, x = jax.tree.map(lambda y: y.astype(dtype), (p, x))
        return function(p, x)

    return narrow


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cast_inside_limits_the_precision_of_the_proof(dtype):
    functions = cast_inside(layer, dtype), layer
    found, *_ = aligned(functions, (LAYER, LAYER), inputs(4, 6))
    assert found.proved and found.precision == dtype
    assert {n: x.sources[0].name for n, x in found.layouts.items()} == {
        f"p.{name}": f"p.{name}" for name in LAYER
    }
    assert 1e-5 < found.agreement < 1e-2
    assert f"the precision of the {dtype} inside" in str(found)
    with pytest.raises(AlignmentError):
        functions = functions[0], without_residual
        aligned(functions, (LAYER, LAYER), inputs(4, 6))


def test_narrow_arrays_are_compared_in_float64():
    arrays = left(layer, **LAYER).p
    narrow = {name: x.astype(jnp.bfloat16) for name, x in arrays.items()}
    first, second = EquinoxModel(narrow, layer), right(layer, **LAYER)
    found = align(first, second, inputs(4, 6), progress=False)
    assert found.proved and found.precision == "float64"
    assert found.agreement < 1e-14
