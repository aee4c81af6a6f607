"""How far a library's layer is from its row of the table.

The row's own function, evaluated in float64 on the very numbers that the
layer gets, is the truth in every dtype. So the two libraries are judged by
the definition, not by each other.
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
from common.layers.table import name_of
from common.protocol import Arrays
from common.registry import find_counterpart

DTYPES = ("float64", "float32", "bfloat16")
TRAINING_CALLS = 3
# Of what a call returns: the row of the tolerance table.
QUANTITIES = {
    "output": "layer",
    "gradients": "layer gradients",
    "buffers": "layer",
}
# An average over many calls moves by less than bfloat16 resolves, so running
# statistics stay float32 in a bfloat16 run, as in `nnx.BatchNorm`. Buffers of
# other names have the dtype of the parameters.
RUNNING_STATISTICS = ("running_mean", "running_var")
# Compiling takes most of the time, and the best code is not on trial: formula
# errors show at any level. These make it four times quicker on the CPU.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One array of a layer's, beside the truth.

    Attributes:
        quantity: `"output"`, `"gradients"`, `"buffers"` or `"curvature"`.
        mode: `"train"` or `"eval"`.
        what: names the array.
        off: the largest difference over the array's largest magnitude.
        bound: the largest that is agreement.
    """

    quantity: str
    mode: str
    what: str
    off: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether it agrees; NaN does not."""
        return self.off <= self.bound

    def __str__(self):
        return (
            f"{self.quantity} of {self.what} in {self.mode}: off by "
            f"{self.off:.3g}, expected within {self.bound:.3g}"
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
    """Calls a layer on random data, in training and in inference.

    Three training calls on different data, each with its gradients and with
    the buffers that the one before left; then one in inference.

    Args:
        layer: a row of the table.
        backend: whose counterpart is on trial.
        dtype: of parameters, buffers and inputs: `"float64"`, `"float32"` or
            `"bfloat16"`.
        batch_size: examples a call.
        seed: of the data.
        quick: whether to compile for speed of compiling, and to call a layer
            once that is the same in every call.

    Returns:
        What was found of each array.
    """
    case = draw(layer, batch_size, seed)
    if quick and not (case.buffers or layer.random):
        case = case._replace(calls=case.calls[:1])
    got = _run(layer, backend, dtype, _cast_case(case, dtype), quick)
    truth = "float64" if not layer.random else dtype
    want = _run(layer, "reference", truth, _cast_case(case, dtype), quick)
    terms = max(x.size for x in jax.tree.leaves((case, want)))

    findings: list[Finding] = []
    buffers = _cast_case(case, dtype).buffers
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        mode = "train" if number < TRAINING_CALLS else "eval"
        for quantity, bound in QUANTITIES.items():
            for what, x, true, scale in _pairs(
                layer, ours[quantity], theirs[quantity]
            ):
                kind = dtype
                if quantity == "buffers":
                    kind = _buffer_dtype(what, dtype)
                off = _difference(x, true, kind, scale)
                limit = layer_tolerance(kind, bound, terms)
                findings.append(Finding(quantity, mode, what, off, limit))
        if mode == "eval":
            # Inference leaves the buffers alone, bit for bit.
            for what, x in ours["buffers"].items():
                off = relative_error(x, buffers[what])
                findings.append(Finding("buffers", mode, what, off, 0.0))
        buffers = ours["buffers"]
    return findings


def curvature(
    layer: Layer, backend: str, *, batch_size: int = 3, seed: int = 0
) -> list[Finding]:
    """Compares a Hessian-vector product in training, in float64."""
    case = _cast_case(draw(layer, batch_size, seed), "float64")
    got, want = (
        compiled(layer, name, "float64", True, True, True)(
            case.params, case.buffers, *case.calls[0]
        )
        for name in (backend, "reference")
    )
    terms = max(x.size for x in jax.tree.leaves((case, want)))
    limit = layer_tolerance("float64", "layer curvature", terms)
    scale = max(map(magnitude, jax.tree.leaves(want)), default=0.0)
    return [
        Finding(
            "curvature",
            "train",
            what,
            _difference(x, true, "float64", scale),
            limit,
        )
        for what, x, true, _ in _pairs(layer, got, want)
    ]


# --- data -------------------------------------------------------------------


class Call(NamedTuple):
    """What a layer is called with.

    Attributes:
        inputs: a batch of each input.
        weights: of the outputs' elements in the loss that is differentiated.
        key: the data of a random key.
    """

    inputs: tuple[Any, ...]
    weights: Any
    key: Any


class Case(NamedTuple):
    """A layer's arrays, and what it is called with, one call at a time."""

    params: Arrays
    buffers: Arrays
    calls: tuple[Call, ...]


def draw(layer: Layer, batch_size: int, seed: int) -> Case:
    """Draws parameters from N(0, 1), so that no zero hides a difference.

    Buffers start as the row says.
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
        weights = jax.tree.map(lambda it: rng.normal(size=it.shape), outputs)
        data = np.asarray(jr.key_data(jr.fold_in(key, number)))
        calls.append(Call(inputs, weights, data))
    return Case(params, buffers, tuple(calls))


def _cast(tree: Any, dtype: str) -> Any:
    """Rounds every float of a tree to a dtype."""

    def cast(x):
        return x.astype(jnp.dtype(dtype)) if _is_float(x) else x

    return jax.tree.map(cast, tree)


def _cast_case(case: Case, dtype: str) -> Case:
    """Rounds every float of a case, running statistics never below float32."""
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
    """Calls a layer on one call of a case after the other."""
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
    """Returns a jitted call of a layer with its gradients.

    Compiled once for a row and its hyper-parameters, whatever is drawn.
    """
    x64 = dtype == "float64"
    with jax.enable_x64(x64):
        forward = find_counterpart(backend, layer).forward

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
            # Not along the variables themselves: a spectral norm's gradient
            # has no slope there.
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


def _inputs(gradients: dict[int, Any]) -> dict[str, Any]:
    return {f"input {i}": x for i, x in gradients.items()}


# --- comparing --------------------------------------------------------------


def _pairs(layer: Layer, got: Any, want: Any) -> Iterator[tuple[Any, ...]]:
    """Yields name, array, truth and scale for each leaf of two trees."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(want)
    if jax.tree.structure(got) != tree:
        raise ValueError(
            f"{name_of(type(layer))}: got results of the structure "
            f"{jax.tree.structure(got)}, expected {tree}. Correct the "
            "layer's `call` or the row."
        )
    largest = max((magnitude(x) for _, x in leaves), default=0.0)
    for (path, true), x in zip(leaves, jax.tree.leaves(got), strict=True):
        what = jax.tree_util.keystr(path, simple=True)
        scale = largest if what in layer.zero_gradient else None
        yield what, x, true, scale


def _difference(x: Any, true: Any, dtype: str, scale: float | None) -> float:
    """Compares in float64, after the dtype itself."""
    if _is_float(true):
        if x.dtype != jnp.dtype(dtype):
            return np.inf
        x, true = x.astype(np.float64), true.astype(np.float64)
    elif jnp.issubdtype(true.dtype, jnp.integer):
        x = x.astype(true.dtype)  # a counter keeps its library's width
    return relative_error(x, true, scale)
