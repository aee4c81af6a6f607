"""Measures the error of a library's layer, compared with its definition.

In every dtype, the expected values are those of the row's definition,
evaluated in float64 on the same numbers that the layer gets. Each library is
thus compared with the definition, and not with the other library.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.agreement import (
    amplified,
    layer_tolerance,
    magnitude,
    relative_error,
)
from common.comparison.layer_data import (
    TRAINING_CALLS,
    Case,
    buffer_dtype,
    cast_case,
    draw,
    is_float,
)
from common.comparison.layer_data import Call as Call
from common.layers import Layer
from common.registry import find_counterpart

DTYPES = ("float64", "float32", "bfloat16")
"""The dtypes of the documentation. `layer_tolerance` has further ones."""
# What a call returns, and the row of the tolerance table for it.
QUANTITIES = {
    "output": "layer",
    "gradients": "layer gradients",
    "buffers": "layer",
}
# Most of the time is spent compiling. An error in a formula shows at any
# optimization level, and these options compile four times faster on the CPU.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """The error of one array of a layer.

    Attributes:
        quantity: `"output"`, `"gradients"`, `"buffers"` or `"curvature"`.
        mode: `"train"` or `"eval"`.
        array: the name of the array.
        error: the error relative to the array's largest magnitude.
        tolerance: the largest error that counts as agreement.
    """

    quantity: str
    mode: str
    array: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance. False for NaN."""
        return self.error <= self.tolerance

    def __str__(self):
        of = f" of {self.array}" if self.array else ""
        return (
            f"{self.quantity}{of} in {self.mode}: got an error of "
            f"{self.error:.3g}, expected at most {self.tolerance:.3g}"
        )


def measure(
    layer: Layer,
    backend: str,
    dtype: str,
    *,
    batch_size: int = 3,
    seed: int = 0,
    mean: float = 0.0,
    quick: bool = False,
) -> list[Finding]:
    """Measures a layer on random data, in training and in inference.

    The layer is called three times in training, on different data and with
    the buffers of the call before, and then once in inference. Every call
    also computes the gradients.

    Args:
        layer: a row of the table.
        backend: the library whose layer is measured.
        dtype: the dtype of parameters, buffers and inputs: `"float64"`,
            `"float32"`, `"bfloat16"` or `"float16"`.
        batch_size: the number of examples per call.
        seed: determines the data.
        mean: added to the inputs.
        quick: whether to compile with little optimization, and to call the
            layer only once if it has no buffers and is not random.

    Returns:
        A finding for each array of each call. If an array exceeds the
        tolerance in a narrow dtype, its tolerance is a multiple of the error
        that the definition itself has in this dtype, if that is more.
    """
    case = draw(layer, batch_size, seed, mean)
    if quick and not (case.buffers or layer.random):
        case = case._replace(calls=case.calls[:1])
    got = _run(layer, backend, dtype, cast_case(case, dtype), quick)
    # A random mask depends on the dtype.
    reference = dtype if layer.random else "float64"
    want = _run(layer, "reference", reference, cast_case(case, dtype), quick)
    terms = max(x.size for x in jax.tree.leaves((case, want)))
    offset = max(layer.offset(*call.inputs) for call in case.calls)

    noise: dict[tuple[int, str], float] = {}
    findings: list[Finding] = []
    buffers = cast_case(case, dtype).buffers
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        mode = "train" if number < TRAINING_CALLS else "eval"
        for quantity, bound in QUANTITIES.items():
            for name, x, expected, scale in _pairs(
                layer, ours[quantity], theirs[quantity]
            ):
                expected_dtype = dtype
                if quantity == "buffers":
                    expected_dtype = buffer_dtype(name, dtype)
                error = _error(x, expected, expected_dtype, scale)
                tolerance = layer_tolerance(
                    expected_dtype, bound, terms, offset
                )
                if error > tolerance and reference != dtype == expected_dtype:
                    # The formula itself may amplify rounding errors.
                    noise = noise or _noise(layer, case, dtype, want, quick)
                    widest = amplified(noise[number, quantity])
                    tolerance = max(tolerance, widest)
                findings.append(
                    Finding(quantity, mode, name, error, tolerance)
                )
        if mode == "eval":
            # Inference must return the buffers unchanged, bit for bit.
            for name, x in ours["buffers"].items():
                error = relative_error(x, buffers[name])
                findings.append(Finding("buffers", mode, name, error, 0.0))
        buffers = ours["buffers"]
    return findings


def curvature(
    layer: Layer, backend: str, *, batch_size: int = 3, seed: int = 0
) -> list[Finding]:
    """Measures a Hessian-vector product in training, in float64."""
    case = cast_case(draw(layer, batch_size, seed), "float64")
    got, want = (
        compiled(layer, name, "float64", True, True, True)(
            case.params, case.buffers, *case.calls[0]
        )
        for name in (backend, "reference")
    )
    terms = max(x.size for x in jax.tree.leaves((case, want)))
    tolerance = layer_tolerance("float64", "layer curvature", terms)
    scale = max(map(magnitude, jax.tree.leaves(want)), default=0.0)
    return [
        Finding(
            "curvature",
            "train",
            name,
            _error(x, expected, "float64", scale),
            tolerance,
        )
        for name, x, expected, _ in _pairs(layer, got, want)
    ]


# --- running ----------------------------------------------------------------


def _run(
    layer: Layer, backend: str, dtype: str, case: Case, quick: bool
) -> list[dict[str, Any]]:
    """Runs the calls of a case, one after the other."""
    params, buffers, calls = cast_case(case, dtype)
    results = []
    for number, call in enumerate(calls):
        training = number < TRAINING_CALLS
        run = compiled(layer, backend, dtype, training, quick)
        results.append(jax.device_get(run(params, buffers, *call)))
        buffers = results[-1]["buffers"]
    return results


@functools.lru_cache(maxsize=128)
def compiled(
    layer: Layer,
    backend: str,
    dtype: str,
    training: bool,
    quick: bool,
    second: bool = False,
) -> Callable[..., Any]:
    """Returns a jitted function that calls a layer and differentiates it.

    It is compiled once per row and hyper-parameters, not once per case. The
    backend `"reference"` is the definition itself. With `second`, the function
    returns a Hessian-vector product instead.
    """
    x64 = dtype == "float64"
    with jax.enable_x64(x64):
        forward = _forward(layer, backend)

    def call(params, buffers, inputs, weights, key):
        floats = {i: x for i, x in enumerate(inputs) if is_float(x)}
        key = jr.wrap_key_data(key)

        def loss(variables):
            params, floats = variables
            outputs, new_buffers = forward(
                params,
                buffers,
                *(floats.get(i, x) for i, x in enumerate(inputs)),
                key=key,
                training=training,
            )
            terms = jax.tree.map(lambda w, y: jnp.sum(w * y), weights, outputs)
            return sum(jax.tree.leaves(terms)), (outputs, new_buffers)

        gradients = jax.grad(loss, has_aux=True)
        variables = (params, floats)
        if second:
            # The direction is not that of the variables themselves, along
            # which the gradient of a spectral norm is constant.
            direction = jax.tree.map(jnp.cos, variables)
            _, ((of_params, of_floats), _) = jax.jvp(
                gradients, (variables,), (direction,)
            )
            return of_params | _inputs(of_floats)
        (of_params, of_floats), (outputs, new_buffers) = gradients(variables)
        return {
            "output": outputs,
            "gradients": of_params | _inputs(of_floats),
            "buffers": new_buffers,
        }

    jitted = jax.jit(call, compiler_options=QUICK if quick else None)

    def run(*arguments):
        with (
            jax.enable_x64(x64),
            jax.default_matmul_precision("highest"),
        ):
            return jitted(*arguments)

    return run


def _forward(layer: Layer, backend: str) -> Callable[..., Any]:
    if backend == "reference":
        return layer.forward
    return find_counterpart(backend, layer).forward


def clear_caches() -> None:
    """Frees the compiled programs of all layers measured so far."""
    compiled.cache_clear()
    jax.clear_caches()


def _inputs(gradients: dict[int, Any]) -> dict[str, Any]:
    return {f"input {i}": x for i, x in gradients.items()}


def _noise(
    layer: Layer, case: Case, dtype: str, want: list[Any], quick: bool
) -> dict[tuple[int, str], float]:
    """Returns the definition's largest errors, by call and quantity."""
    got = _run(layer, "reference", dtype, case, quick)
    return {
        (number, quantity): max(
            _error(x, expected, dtype, scale)
            for _, x, expected, scale in _pairs(
                layer, ours[quantity], theirs[quantity]
            )
        )
        for number, (ours, theirs) in enumerate(zip(got, want, strict=True))
        for quantity in QUANTITIES
        if jax.tree.leaves(theirs[quantity])
    }


# --- comparing --------------------------------------------------------------


def _pairs(layer: Layer, got: Any, want: Any) -> Iterator[tuple[Any, ...]]:
    """Yields name, array, expected array and scale of each leaf."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(want)
    if jax.tree.structure(got) != tree:
        raise ValueError(
            f"{layer.name}: got results of the structure "
            f"{jax.tree.structure(got)}, expected {tree}. Correct the "
            "constructor's `call`, or the row."
        )
    largest = max((magnitude(x) for _, x in leaves), default=0.0)
    for (path, expected), x in zip(leaves, jax.tree.leaves(got), strict=True):
        name = jax.tree_util.keystr(path, simple=True)
        scale = largest if name in layer.zero_gradient else None
        yield name, x, expected, scale


def _error(x: Any, expected: Any, dtype: str, scale: float | None) -> float:
    """Returns the relative error; infinity if x does not have the dtype."""
    if is_float(expected):
        if x.dtype != jnp.dtype(dtype):
            return np.inf
        x, expected = x.astype(np.float64), expected.astype(np.float64)
    elif jnp.issubdtype(expected.dtype, jnp.integer):
        x = x.astype(expected.dtype)  # libraries count in different widths
    return relative_error(x, expected, scale)
