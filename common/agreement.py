"""How far two results may be apart: the one tolerance table, and its ruler.

A difference is the largest absolute one of an array over the array's largest
magnitude, so a tolerance means the same for every quantity. Everything that
is not a float, and every dtype, shape, NaN and infinity, must be equal.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EPS = {
    name: float(jnp.finfo(name).eps)
    for name in ("bfloat16", "float32", "float64")
}

# Relative to the largest magnitude. In float64 the formula is on trial, in
# float32 the rounding, so there the unit is the ULP (EPS).
# - state: what is read back or handed over, bit for bit;
# - forward, loss, buffers: one forward pass;
# - gradients: one backward pass;
# - update: the parameters and the optimizer's state after one step;
# - trajectory: the loss of every step;
# - parameters, moments: the State after every step;
# - eval: the predictions after the last step.
TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "state": 0.0,
        "forward": 1e-12,
        "loss": 1e-12,
        "buffers": 1e-12,
        "gradients": 1e-11,
        "update": 1e-10,
        "trajectory": 1e-10,
        "parameters": 1e-8,
        "moments": 1e-8,
        "eval": 1e-8,
    },
    "float32": {
        "state": 0.0,
        "forward": 16 * EPS["float32"],
        "loss": 8 * EPS["float32"],
        "buffers": 16 * EPS["float32"],
        "gradients": 64 * EPS["float32"],
        "update": 256 * EPS["float32"],
        "trajectory": 32 * EPS["float32"],
        "parameters": 256 * EPS["float32"],
        "moments": 512 * EPS["float32"],
        "eval": 64 * EPS["float32"],
    },
}

# A single layer, against its definition in float64. In the narrow dtypes the
# error of a sum grows with its terms, as the square root where they round
# independently: these are multiplied by sqrt(the largest array's elements).
# - layer: outputs and updated buffers;
# - layer gradients: to the inputs and to the parameters;
# - layer curvature: a Hessian-vector product.
LAYER_TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "layer": 1e-12,
        "layer gradients": 1e-12,
        "layer curvature": 1e-10,
    },
    "float32": {
        "layer": 2 * EPS["float32"],
        "layer gradients": 4 * EPS["float32"],
    },
    "bfloat16": {
        "layer": 2 * EPS["bfloat16"],
        "layer gradients": 4 * EPS["bfloat16"],
    },
}

# Two values of two programs are the same one within this many units in the
# last place of the narrowest dtype on the way. A formula that differs shows
# in float64 well above; in a narrow dtype rounding may have added up.
MATCH_ULPS = {"float64": 2.0**22, "float32": 2.0**8, "bfloat16": 2.0**3}

# In float32 two runs drift apart, because every step rounds and because Adam
# divides by a gradient that falls as training succeeds. The envelope is the
# tolerance above times 1 + (steps / DRIFT_STEPS)^2.
DRIFTS = frozenset({"trajectory", "parameters", "moments", "eval"})
DRIFT_STEPS = 16

# Other platforms round their transcendental functions and reductions
# otherwise. Only the CPU's figures are measured; the rest is an allowance.
PLATFORMS = {"cpu": 1, "gpu": 8, "tpu": 8}


def tolerance(dtype: str, quantity: str, steps: int = 0) -> float:
    """Returns the largest difference that still counts as agreement.

    Args:
        dtype: `"float32"` or `"float64"`.
        quantity: a row of the table above.
        steps: training steps taken so far.
    """
    bound = TOLERANCES[dtype][quantity]
    if dtype == "float32" and quantity in DRIFTS:
        bound *= 1 + (steps / DRIFT_STEPS) ** 2
    return bound * _platform()


def layer_tolerance(dtype: str, quantity: str, terms: int) -> float:
    """Returns the largest difference at which a layer is its definition.

    Args:
        dtype: `"float64"`, `"float32"` or `"bfloat16"`.
        quantity: a row of `LAYER_TOLERANCES`.
        terms: elements of the largest array of the call.
    """
    bound = LAYER_TOLERANCES[dtype][quantity]
    if dtype != "float64":
        bound *= terms**0.5
    return bound * _platform()


def match_tolerance(eps: float) -> float:
    """Returns the distance within which two programs' values are one.

    Args:
        eps: of the narrowest floating dtype that both passed through; 0 for
            integers.
    """
    for name in ("float64", "float32", "bfloat16"):
        if eps <= EPS[name]:
            return MATCH_ULPS[name] * max(eps, EPS["float64"]) * _platform()
    return MATCH_ULPS["bfloat16"] * eps * _platform()


def _platform() -> int:
    return PLATFORMS.get(jax.default_backend(), max(PLATFORMS.values()))


def relative_error(left: Any, right: Any, scale: float | None = None) -> float:
    """Measures how far two arrays are apart.

    Args:
        left: an array.
        right: an array.
        scale: the magnitude to measure in; by default the largest one of the
            two arrays.

    Returns:
        The largest difference over the scale. Infinity for another shape or
        dtype, a NaN or an infinity on one side only, or for anything but
        floats that is not equal.
    """
    left, right = np.asarray(left), np.asarray(right)
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return np.inf
    if not jnp.issubdtype(left.dtype, jnp.floating):
        return 0.0 if np.array_equal(left, right) else np.inf
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return np.inf
    left, right = left[finite], right[finite]
    largest = float(np.max(np.abs(left - right), initial=0.0))
    if largest == 0.0:
        return 0.0
    if scale is None:
        scale = max(magnitude(left), magnitude(right))
    return largest / scale if scale else np.inf


def magnitude(x: Any) -> float:
    """Returns the largest finite absolute value of an array."""
    x = np.abs(np.asarray(x, np.float64))
    return float(np.max(x[np.isfinite(x)], initial=0.0))


def relative_errors(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    scales: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Measures arrays by name; a name on one side only is infinitely off.

    Args:
        left: arrays by name.
        right: arrays by name.
        scales: the magnitude to measure in, where it is not the array's own.
    """
    scales = scales or {}
    return {
        name: relative_error(left[name], right[name], scales.get(name))
        if name in left and name in right
        else np.inf
        for name in [*left, *(right.keys() - left.keys())]
    }


def assert_close(
    actual: Any,
    expected: Any,
    *,
    dtype: str,
    quantity: str,
    what: str = "",
    steps: int = 0,
) -> None:
    """Asserts that two trees of arrays agree, leaf by leaf.

    Args:
        actual: a pytree of arrays.
        expected: a pytree of the same structure.
        dtype: column of the tolerance table.
        quantity: row of the tolerance table.
        what: names the arrays in the message.
        steps: training steps taken so far.

    Raises:
        AssertionError: naming every leaf that disagrees, and by how much.
    """
    left, tree = jax.tree_util.tree_flatten_with_path(actual)
    right = jax.tree.structure(expected)
    if tree != right:
        raise AssertionError(f"{what}: got the tree {tree}, expected {right}.")
    bound = tolerance(dtype, quantity, steps)
    problems = []
    for (path, a), e in zip(left, jax.tree.leaves(expected), strict=True):
        off = relative_error(a, e)
        if not off <= bound:
            a, e = np.asarray(a), np.asarray(e)
            problems.append(
                f"{what}{jax.tree_util.keystr(path)} ({quantity}): got "
                f"{a.dtype}{a.shape} off by {off:.3g}, expected "
                f"{e.dtype}{e.shape} within {bound:.3g}."
            )
    if problems:
        raise AssertionError("\n".join(problems))
