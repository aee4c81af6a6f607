"""Measures the error of a library's layer, compared with its definition.

In every dtype, the expected values are those of the row's definition,
evaluated in float64 on the same numbers that the layer gets. Each library is
thus compared with the definition, and not with the other library.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.agreement import layer_tolerance, magnitude, relative_error
from common.layers import Layer
from common.protocol import Arrays
from common.registry import find_counterpart

DTYPES = ("float64", "float32", "bfloat16")
TRAINING_CALLS = 3
# What a call returns, and the row of the tolerance table for it.
QUANTITIES = {
    "output": "layer",
    "gradients": "layer gradients",
    "buffers": "layer",
}
# Running statistics stay in float32 in a bfloat16 run, as in `nnx.BatchNorm`,
# because a moving average changes by less than bfloat16 resolves. Buffers with
# other names have the dtype of the parameters.
RUNNING_STATISTICS = ("running_mean", "running_var")
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
            `"float32"` or `"bfloat16"`.
        batch_size: the number of examples per call.
        seed: determines the data.
        quick: whether to compile with little optimization, and to call the
            layer only once if it has no buffers and is not random.

    Returns:
        A finding for each array of each call.
    """
    case = draw(layer, batch_size, seed)
    if quick and not (case.buffers or layer.random):
        case = case._replace(calls=case.calls[:1])
    got = _run(layer, backend, dtype, _cast_case(case, dtype), quick)
    # A random mask depends on the dtype.
    reference = dtype if layer.random else "float64"
    want = _run(layer, "reference", reference, _cast_case(case, dtype), quick)
    terms = max(x.size for x in jax.tree.leaves((case, want)))

    findings: list[Finding] = []
    buffers = _cast_case(case, dtype).buffers
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        mode = "train" if number < TRAINING_CALLS else "eval"
        for quantity, bound in QUANTITIES.items():
            for name, x, expected, scale in _pairs(
                layer, ours[quantity], theirs[quantity]
            ):
                expected_dtype = dtype
                if quantity == "buffers":
                    expected_dtype = _buffer_dtype(name, dtype)
                error = _error(x, expected, expected_dtype, scale)
                tolerance = layer_tolerance(expected_dtype, bound, terms)
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
    case = _cast_case(draw(layer, batch_size, seed), "float64")
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


# --- data -------------------------------------------------------------------


class Call(NamedTuple):
    """The arguments of one call of a layer.

    Attributes:
        inputs: a batch of each input.
        weights: the loss that is differentiated is the sum of the outputs,
            multiplied by these weights.
        key: the data of a random key.
    """

    inputs: tuple[Any, ...]
    weights: Any
    key: Any


class Case(NamedTuple):
    """The arrays of a layer, and the arguments of each call."""

    params: Arrays
    buffers: Arrays
    calls: tuple[Call, ...]


def draw(layer: Layer, batch_size: int, seed: int) -> Case:
    """Draws the data of a measurement.

    Parameters are drawn from N(0, 1), because a zero could hide an error.
    Buffers have the initial values that the row declares.
    """
    rng = np.random.default_rng(seed)
    key = jr.key(seed)
    params, buffers = {}, {}
    for i, (name, variable) in enumerate(layer.variables().items()):
        if variable.trainable:
            params[name] = rng.normal(size=variable.shape)
        else:
            value = variable.init(jr.fold_in(key, i), variable.shape)
            buffers[name] = np.asarray(value)
    calls = []
    for number in range(TRAINING_CALLS + 1):
        inputs = layer.draw(rng, batch_size)
        outputs, _ = jax.eval_shape(
            functools.partial(layer.forward, key=key, training=True),
            params, buffers, *inputs,
        )  # fmt: skip
        weights = jax.tree.map(lambda y: rng.normal(size=y.shape), outputs)
        data = np.asarray(jr.key_data(jr.fold_in(key, number)))
        calls.append(Call(inputs, weights, data))
    return Case(params, buffers, tuple(calls))


def _cast(tree: Any, dtype: str) -> Any:
    """Rounds every float of a tree to a dtype."""

    def cast(x):
        return x.astype(jnp.dtype(dtype)) if _is_float(x) else x

    return jax.tree.map(cast, tree)


def _cast_case(case: Case, dtype: str) -> Case:
    """Rounds every float of a case, except running statistics, to a dtype."""
    params, buffers, calls = case
    return Case(
        _cast(params, dtype),
        {
            name: _cast(x, _buffer_dtype(name, dtype))
            for name, x in buffers.items()
        },
        _cast(calls, dtype),
    )


def _buffer_dtype(name: str, dtype: str) -> str:
    wide = dtype == "bfloat16" and name in RUNNING_STATISTICS
    return "float32" if wide else dtype


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


# --- running ----------------------------------------------------------------


def _run(
    layer: Layer, backend: str, dtype: str, case: Case, quick: bool
) -> list[dict[str, Any]]:
    """Runs the calls of a case, one after the other."""
    params, buffers, calls = _cast_case(case, dtype)
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
        floats = {i: x for i, x in enumerate(inputs) if _is_float(x)}
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
    if _is_float(expected):
        if x.dtype != jnp.dtype(dtype):
            return np.inf
        x, expected = x.astype(np.float64), expected.astype(np.float64)
    elif jnp.issubdtype(expected.dtype, jnp.integer):
        x = x.astype(expected.dtype)  # libraries count in different widths
    return relative_error(x, expected, scale)
