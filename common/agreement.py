"""The tolerances of the project; `array_errors` defines what they bound."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.array_errors import magnitude as magnitude
from common.array_errors import relative_error as relative_error
from common.array_errors import relative_errors as relative_errors

EPS = {
    name: float(jnp.finfo(name).eps)
    for name in ("bfloat16", "float16", "float32", "float64")
}

# The largest relative errors that count as agreement. A float64 comparison
# tests the formula, and a float32 comparison tests the rounding, so the
# float32 tolerances are multiples of the machine epsilon.
# - state: arrays that are saved and loaded or passed to another backend,
#   which must be equal bit for bit
# - forward, training, loss, buffers: the results of one forward pass
# - gradients: the result of one backward pass
# - update: the parameters and the optimizer state after one step
# - trajectory: the loss of each step
# - parameters, moments: the State after each step
# - eval: the predictions after the last step
TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "state": 0.0,
        "forward": 1e-12,
        "training": 1e-12,
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
        "training": 16 * EPS["float32"],
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

# A model that computes in a narrower dtype rounds as often, only coarser.
# Above the largest bound, two arrays have little in common.
LARGEST_BOUND = 0.25
for _dtype in ("float16", "bfloat16"):
    TOLERANCES[_dtype] = {
        name: min(bound / EPS["float32"] * EPS[_dtype], LARGEST_BOUND)
        for name, bound in TOLERANCES["float32"].items()
    }

# In mixed precision, products round to the compute dtype. Sums, statistics,
# parameters and the loss do not. Backends round at the same places, so the
# results of the forward pass differ only where another order of a float32 sum
# moves a value across a rounding boundary: by at most the machine epsilon of
# the compute dtype, and on average over a batch by far less. The backward pass
# also sums in the compute dtype, the gradients of biases for example, and
# Adam squares the gradients. Measured on all models, dialects and backends
# with and without XLA's optimizations, in ULPs of bfloat16: forward and loss
# 0, buffers 4e-5, gradients 1.4, update 2.4.
# After more steps Adam amplifies the rounding, by as much as it amplifies that
# of the definition itself; see `EXPLAINED`.
MIXED_ULPS = {
    "state": 0.0,
    "forward": 1.0,
    "training": 1.0,
    "loss": 0.25,
    "buffers": 1 / 32,
    "gradients": 4.0,
    "update": 8.0,
    "trajectory": 1.0,
    "parameters": 16.0,
    "moments": 32.0,
    "eval": 4.0,
}


def mixed(dtype: str, compute_dtype: str | None) -> str:
    """Returns the key of `TOLERANCES` for a trainer.

    Args:
        dtype: the dtype of its parameters.
        compute_dtype: the dtype that it computes in; `None` if it is that of
            its parameters.
    """
    return dtype if compute_dtype is None else f"{dtype}/{compute_dtype}"


for _dtype in ("float16", "bfloat16"):
    TOLERANCES[mixed("float32", _dtype)] = {
        name: bound * EPS[_dtype] for name, bound in MIXED_ULPS.items()
    }

# The largest relative errors of a single layer compared with its definition in
# float64. In narrower dtypes the rounding error of a sum grows with the square
# root of the number of its terms if they round independently, so these
# tolerances are multiplied by the square root of the largest array's size.
# A layer that subtracts a mean loses the digits that the elements share, so
# its tolerances are multiplied by |mean| / (standard deviation) if that is
# above 1. Measured with means of up to 1e4 standard deviations, on the rows of
# the layer table, all errors are below a quarter of the tolerance.
# - layer: the outputs and the updated buffers
# - layer gradients: the gradients of the inputs and of the parameters
# - layer curvature: a Hessian-vector product
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
}
# The same multiples of a different machine epsilon. In float16, measured on
# the examples of the layer table, all errors are below a fifth of the bound.
for _dtype in ("bfloat16", "float16"):
    LAYER_TOLERANCES[_dtype] = {
        name: bound / EPS["float32"] * EPS[_dtype]
        for name, bound in LAYER_TOLERANCES["float32"].items()
    }

# Models of a user may have any width and depth, so a run of the left model
# that starts from weights with one more rounding error is a yardstick: errors
# of up to this many times what the rounding error leads to are no mismatch.
# Measured on the 13 pairs of `tests/pairs` in float32 over 20 steps: two pairs
# exceed a tolerance above, by at most 1.2 times, with errors of 0.9 and 7.3
# times what the rounding error leads to. For a layer, the yardstick is the
# error of its definition in the same dtype: of 2,616 nightly draws in float32
# and bfloat16, three settings exceed their tolerance, with errors of 0.7 to 5
# times that of the definition.
AMPLIFIED = 16

# In mixed precision the yardstick is the error of the definition itself: how
# far a run in float32 is from it. Two runs that both round at every product
# may be twice as far apart. It counts for the quantities that drift; those of
# the first step stay within the tolerance above. The largest error of any
# array so far counts for all, because Adam turns a small gradient with another
# sign into a full step, and which array has one is chance. The runs of
# `tests/comparison/test_mixed_precision.py` measure how often it is needed.
EXPLAINED = 2

# Values of two programs match if their error is at most this many ULPs of the
# narrowest dtype that they passed through. In float64, different formulas
# give errors far above this limit. In the narrow dtypes, rounding errors can
# accumulate up to it.
MATCH_ULPS = {"float64": 2.0**22, "float32": 2.0**8, "bfloat16": 2.0**3}

# If a program of narrow floats is evaluated in float64, only its literals and
# its casts to a narrower dtype are rounded. Values match within this many
# ULPs of float32 if the literals are of float32, and within this many ULPs
# of the narrowest dtype that they were cast to, where the two programs cast
# different values.
LITERAL_ULPS = 2.0
CAST_ULPS = {"float32": 2.0**6, "bfloat16": 2.0**3}

# What counts as equal when two models are aligned, by the narrowest dtype that
# they compute in. Where it is not float64, the errors are those of rounding in
# that dtype, so the tolerances are multiples of its machine epsilon.
# - outputs, gradients: of the proof, and at a symmetric point
# - match: the gradients of arrays that correspond, at a symmetric point; other
#   arrays differ by about 1
# - floor: the rounding error of a gradient, relative to the largest one
# - effect: the gradient of an array that has an effect, relative to the
#   largest one; smaller gradients are rounding errors
ALIGNMENT: dict[str, dict[str, float]] = {
    "float64": {
        "outputs": 1e-12,
        "gradients": 1e-11,
        "match": 1e-8,
        "floor": 64 * EPS["float64"],
        "effect": 1e-10,
    },
    "float32": {
        "outputs": 64 * EPS["float32"],
        "gradients": 1024 * EPS["float32"],
        "match": 4096 * EPS["float32"],
        "floor": 16 * EPS["float32"],
        "effect": 64 * EPS["float32"],
    },
    "bfloat16": {
        "outputs": 8 * EPS["bfloat16"],
        "gradients": 32 * EPS["bfloat16"],
        "match": 32 * EPS["bfloat16"],
        "floor": 2 * EPS["bfloat16"],
        "effect": 4 * EPS["bfloat16"],
    },
}

# The same multiples of a different machine epsilon.
ALIGNMENT["float16"] = {
    name: bound / EPS["bfloat16"] * EPS["float16"]
    for name, bound in ALIGNMENT["bfloat16"].items()
}

# Two models whose outputs differ by less than this at a symmetric point are of
# one architecture with a numerical difference, such as another epsilon or
# approximation. A missing or different operation changes the outputs by more.
NEARLY_EQUAL = 2e-2

# By how much the gradients of such models may differ, as a multiple of the
# error of the outputs, and at most.
NEARLY_EQUAL_GRADIENTS = 300, 0.3

# The error of two float32 runs grows with the number of steps, because each
# step rounds and because Adam divides by gradients that shrink as training
# progresses. For these quantities the tolerance above is multiplied by
# 1 + (steps / DRIFT_STEPS)^2.
DRIFTS = frozenset({"trajectory", "parameters", "moments", "eval"})
DRIFT_STEPS = 16

# Accelerators round transcendental functions and reductions differently. Only
# the CPU tolerances are measured, and the other factors are estimates.
PLATFORMS = {"cpu": 1, "gpu": 8, "tpu": 8}


def tolerance(dtype: str, quantity: str, steps: int = 0) -> float:
    """Returns the largest relative error that counts as agreement.

    Args:
        dtype: a key of `TOLERANCES`.
        quantity: a key of `TOLERANCES[dtype]`.
        steps: the number of training steps taken so far.
    """
    bound = TOLERANCES[dtype][quantity]
    if dtype in EPS and dtype != "float64" and quantity in DRIFTS:
        bound *= 1 + (steps / DRIFT_STEPS) ** 2
    return bound * _platform()


def amplified(noise: float) -> float:
    """Returns the largest error that rounding can explain.

    Args:
        noise: the error of a run with one more rounding error, or of a
            definition in a narrow dtype; infinite or NaN errors explain
            nothing.
    """
    return AMPLIFIED * noise if np.isfinite(noise) else 0.0


def explained(dtype: str, quantity: str, noise: float) -> float:
    """Returns the largest error that a yardstick explains.

    Args:
        dtype: a key of `TOLERANCES`.
        quantity: a key of `TOLERANCES[dtype]`.
        noise: the error of the run that is the yardstick: of one with one
            more rounding error, or in mixed precision of one in float32.
    """
    if dtype in EPS:
        return amplified(noise)
    if quantity in DRIFTS and np.isfinite(noise):
        return EXPLAINED * noise
    return 0.0


def layer_tolerance(
    dtype: str, quantity: str, terms: int, offset: float = 0.0
) -> float:
    """Returns the largest relative error of a layer that is correct.

    Args:
        dtype: `"float64"`, `"float32"`, `"bfloat16"` or `"float16"`.
        quantity: a key of `LAYER_TOLERANCES[dtype]`.
        terms: the number of elements of the largest array of the call.
        offset: the largest |mean| that the layer subtracts, in standard
            deviations.
    """
    bound = LAYER_TOLERANCES[dtype][quantity]
    if dtype != "float64":
        bound *= terms**0.5
    return bound * max(1.0, offset) * _platform()


def alignment_tolerance(dtype: str, quantity: str) -> float:
    """Returns the bound for a quantity of an alignment.

    Args:
        dtype: the narrowest dtype that the models compute in.
        quantity: a key of `ALIGNMENT[dtype]`.
    """
    return ALIGNMENT[dtype][quantity] * _platform()


def match_tolerance(eps: float) -> float:
    """Returns the largest error at which values of two programs match.

    Args:
        eps: the machine epsilon of the narrowest floating-point dtype that
            both values passed through, or 0 for integers.
    """
    for name in ("float64", "float32", "bfloat16"):
        if eps <= EPS[name]:
            return MATCH_ULPS[name] * max(eps, EPS["float64"]) * _platform()
    return MATCH_ULPS["bfloat16"] * eps * _platform()


def widened_tolerance(eps: float, literals: float) -> float:
    """Returns the largest error at which values of two programs match.

    Both programs are evaluated in float64, whatever their dtypes are.

    Args:
        eps: the machine epsilon of the narrowest dtype that either program
            cast the values to, or 0 if no cast rounded them.
        literals: the machine epsilon of the dtype of their literals.
    """
    tolerance = match_tolerance(EPS["float64"])
    if literals > EPS["float64"]:
        tolerance = max(tolerance, LITERAL_ULPS * EPS["float32"])
    if eps > EPS["float64"]:
        name = "float32" if eps <= EPS["float32"] else "bfloat16"
        tolerance = max(tolerance, CAST_ULPS[name] * eps)
    return tolerance


def _platform() -> int:
    return PLATFORMS.get(jax.default_backend(), max(PLATFORMS.values()))


def assert_close(
    actual: Any,
    expected: Any,
    *,
    dtype: str,
    quantity: str,
    what: str = "",
    steps: int = 0,
) -> None:
    """Asserts that the leaves of two pytrees agree.

    Args:
        actual: a pytree of arrays.
        expected: a pytree of the same structure.
        dtype: a key of `TOLERANCES`.
        quantity: a key of `TOLERANCES[dtype]`.
        what: the name of the pytrees in the message.
        steps: the number of training steps taken so far.

    Raises:
        AssertionError: if the structures differ, or if the error of a leaf
            exceeds its tolerance. The message lists every such leaf.
    """
    left, tree = jax.tree_util.tree_flatten_with_path(actual)
    right = jax.tree.structure(expected)
    if tree != right:
        raise AssertionError(f"{what}: got the tree {tree}, expected {right}.")
    bound = tolerance(dtype, quantity, steps)
    mismatches = []
    for (path, a), e in zip(left, jax.tree.leaves(expected), strict=True):
        error = relative_error(a, e)
        if not error <= bound:
            a, e = np.asarray(a), np.asarray(e)
            mismatches.append(
                f"{what}{jax.tree_util.keystr(path)} ({quantity}): got "
                f"{a.dtype}{a.shape} with an error of {error:.3g}, expected "
                f"{e.dtype}{e.shape} and at most {bound:.3g}."
            )
    if mismatches:
        raise AssertionError("\n".join(mismatches))
