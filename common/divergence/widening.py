"""Evaluates the equations of a program of narrow floats in float64.

A program in float32 rounds after every operation. Evaluated in float64, it
rounds only where it casts to a dtype that is narrower than the one before, so
that rounding does not hide a divergence, and the casts that do lose precision
are known.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDE = {
    jnp.dtype("bfloat16"): jnp.dtype("float64"),
    jnp.dtype("float16"): jnp.dtype("float64"),
    jnp.dtype("float32"): jnp.dtype("float64"),
    jnp.dtype("complex64"): jnp.dtype("complex128"),
}
# Primitives whose results depend on the bits of their operands, or that call
# code which was compiled for their dtypes.
NATIVE = {
    "bitcast_convert_type",
    "custom_call",
    "ffi_call",
    "io_callback",
    "nextafter",
    "pallas_call",
    "pure_callback",
}
# What JAX raises if a primitive cannot be applied to wider operands.
REFUSALS = (TypeError, ValueError, NotImplementedError, RuntimeError)


def is_narrow(dtype: Any) -> bool:
    """Whether arrays of a dtype are evaluated in a wider one."""
    return not _is_key(dtype) and jnp.dtype(dtype) in WIDE


def widen(x: Any) -> Any:
    """Returns an array of narrow floats as float64, any other unchanged."""
    return x.astype(WIDE[x.dtype]) if is_narrow(x.dtype) else x


def eps_of(dtype: Any) -> float:
    """Returns the machine epsilon of a dtype, 0 if it is not of floats."""
    if _is_key(dtype) or not jnp.issubdtype(dtype, jnp.floating):
        return 0.0
    return float(jnp.finfo(dtype).eps)


def read_literal(literal: Any, wide: bool) -> np.ndarray:
    """Returns the value of a literal of a jaxpr."""
    if wide and isinstance(literal.val, float):
        return np.asarray(literal.val, "float64")
    x = np.asarray(literal.val, literal.aval.dtype)
    if wide and x.dtype == np.float32 and not x.shape:
        # The shortest number that rounds to it is what was most likely meant.
        return np.asarray(float(str(x)), "float64")
    return widen(x) if wide else x


def rounding(eqn: Any) -> float:
    """Returns the machine epsilon of the dtype that an equation rounds to.

    Returns:
        0 if the equation does not lose precision when it is evaluated in
        float64.
    """
    name = eqn.primitive.name
    before = eps_of(eqn.invars[0].aval.dtype) if eqn.invars else 0.0
    if name == "convert_element_type":
        after = eps_of(eqn.params["new_dtype"])
    elif name == "reduce_precision":
        after = 2.0 ** -eqn.params["mantissa_bits"]
    else:
        return 0.0
    return after if 0 < before < after else 0.0


def evaluate(eqn: Any, arrays: Sequence[Any]) -> tuple[list[Any], float]:
    """Evaluates an equation on operands that have been widened.

    Returns:
        The results, widened, and the machine epsilon of the dtype that they
        were rounded to, or 0.
    """
    name, rounded = eqn.primitive.name, rounding(eqn)
    if name in ("convert_element_type", "reduce_precision"):
        x, after = arrays[0], eqn.outvars[0].aval.dtype
        floats = eps_of(eqn.invars[0].aval.dtype) and eps_of(after)
        if floats and not rounded:
            return [x], 0.0
        if name == "convert_element_type" and is_narrow(after):
            return [widen(jnp.asarray(x).astype(after))], rounded
    elif name not in NATIVE:
        try:
            return _bind(eqn, arrays, _widen_parameters(eqn.params)), rounded
        except REFUSALS:
            rounded = max(eps_of(var.aval.dtype) for var in eqn.outvars)
    own = [
        jnp.asarray(x).astype(var.aval.dtype)
        if is_narrow(var.aval.dtype)
        else x
        for x, var in zip(arrays, eqn.invars, strict=True)
    ]
    if name == "reduce_precision":
        own = arrays
    return _bind(eqn, own, eqn.params), rounded


def bind(eqn: Any, arrays: Sequence[Any], params: Any) -> list[Any]:
    """Evaluates an equation with other parameters."""
    with eqn.ctx.manager:
        out = eqn.primitive.bind(
            *arrays, **eqn.primitive.get_bind_params(params)
        )
    return list(out) if eqn.primitive.multiple_results else [out]


def _bind(eqn: Any, arrays: Sequence[Any], params: Any) -> list[Any]:
    return [widen(x) for x in bind(eqn, arrays, params)]


def _widen_parameters(params: dict[str, Any]) -> dict[str, Any]:
    """Replaces the narrow dtypes among the parameters of an equation."""
    return {
        key: WIDE[jnp.dtype(value)]
        if isinstance(value, np.dtype | type) and _is_narrow_type(value)
        else value
        for key, value in params.items()
    }


def _is_narrow_type(value: Any) -> bool:
    try:
        return is_narrow(value)
    except TypeError:  # a class that is no dtype
        return False


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.extended)
