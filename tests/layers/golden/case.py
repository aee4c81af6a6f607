"""The cases in a golden file, and how they are computed and stored.

A definition is a NumPy function that is analytic in each of its floats, and
compares real parts only. The imaginary part of `f(x + ih) / h` is then the
derivative to round-off, whatever the step size h.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FOLDER = pathlib.Path(__file__).parent
STEP = 1e-30
BATCH = 2

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The hyper-parameters of a row and its definition in NumPy.

    Attributes:
        layer: the name of the row.
        fields: the fields of the row.
        define: `(*inputs, **params, **buffers, **fields) -> outputs`, which
            returns an array or a tuple of arrays. If there are buffers, it
            also takes `training` and returns `(outputs, new buffers)`.
        inputs: for each input, the shape of one example, a batch, or a list
            with one batch per call.
        params: the shapes of parameters by canonical name.
        buffers: the initial values of buffers by canonical name.
        calls: for each call, whether it is in training.
    """

    layer: str
    fields: Mapping[str, Any]
    define: Callable[..., Any]
    inputs: tuple[Any, ...]
    params: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=dict
    )
    buffers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    calls: tuple[bool, ...] = (False,)

    def call(
        self,
        inputs: list[Any],
        params: Arrays,
        buffers: Arrays,
        training: bool,
    ) -> tuple[list[np.ndarray], Arrays]:
        """Calls the definition; returns a list of outputs and the buffers."""
        if buffers:
            outputs, new = self.define(
                *inputs, **params, **buffers, **self.fields, training=training
            )
        else:
            outputs, new = self.define(*inputs, **params, **self.fields), {}
        return list(outputs if isinstance(outputs, tuple) else (outputs,)), new


def draw(case: Case, seed: int) -> dict[str, Any]:
    """Draws parameters and inputs from N(0, 1), to three decimals."""
    rng = np.random.default_rng([seed, *case.layer.encode()])

    def normal(*shape):
        return np.asarray(np.round(rng.normal(size=shape), 3))

    params = {name: normal(*shape) for name, shape in case.params.items()}
    buffers = {name: np.asarray(x) for name, x in case.buffers.items()}
    calls, left = [], buffers
    for number, training in enumerate(case.calls):
        inputs = [_batch(given, number, normal) for given in case.inputs]
        outputs, left = case.call(inputs, params, left, training)
        weights = [normal(*y.shape) for y in outputs]
        calls.append(
            {"training": training, "inputs": inputs, "weights": weights}
        )
    return {
        "fields": dict(case.fields),
        "params": params,
        "buffers": buffers,
        "calls": calls,
    }


def _batch(given: Any, call: int, normal: Any) -> np.ndarray:
    if isinstance(given, tuple):
        return normal(BATCH, *given)
    return given[call] if isinstance(given, list) else given


def complete(case: Case, data: dict[str, Any]) -> dict[str, Any]:
    """Adds the results of the definition to drawn data."""
    params, buffers = data["params"], data["buffers"]
    calls = []
    for call in data["calls"]:
        training, inputs, weights = (
            call[key] for key in ("training", "inputs", "weights")
        )
        outputs, new = case.call(inputs, params, buffers, training)
        results = {
            "outputs": outputs,
            "gradients": gradients(
                case, inputs, weights, params, buffers, training
            ),
            "buffers": new,
        }
        calls.append({**call, **results})
        buffers = new
    return {**data, "calls": calls}


def gradients(case, inputs, weights, params, buffers, training) -> Arrays:
    """Differentiates sum(weights * outputs) by each element."""

    def slope(inputs, params):
        outputs, _ = case.call(inputs, params, buffers, training)
        pairs = zip(weights, outputs, strict=True)
        return sum(np.sum(w * y) for w, y in pairs).imag / STEP

    result = {
        name: _each(x, lambda z, n=name: slope(inputs, {**params, n: z}))
        for name, x in params.items()
    }
    for i, x in enumerate(inputs):
        if np.issubdtype(x.dtype, np.floating):
            result[f"input {i}"] = _each(
                x,
                lambda z, i=i: slope(
                    [*inputs[:i], z, *inputs[i + 1 :]], params
                ),
            )
    return result


def _each(x: np.ndarray, slope: Callable[[np.ndarray], float]) -> np.ndarray:
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        z = np.array(x, np.complex128)
        z[index] += STEP * 1j
        gradient[index] = slope(z)
    return gradient


# --- files ------------------------------------------------------------------


def path(layer: str) -> pathlib.Path:
    """Returns the golden file of a row."""
    return FOLDER / f"{layer}.json"


def save(layer: str, cases: list[dict[str, Any]]) -> None:
    """Writes cases, one array per line. JSON stores floats exactly."""
    path(layer).write_text(_text(cases, 0) + "\n")


def load(layer: str) -> list[dict[str, Any]]:
    """Reads the cases of a row."""
    cases = json.loads(path(layer).read_text())
    for case in cases:
        for name in ("params", "buffers"):
            case[name] = _arrays(case[name])
        for call in case["calls"]:
            for name in ("inputs", "weights", "outputs"):
                call[name] = [np.array(x) for x in call[name]]
            for name in ("gradients", "buffers"):
                call[name] = _arrays(call[name])
    return cases


def _arrays(lists: dict[str, Any]) -> Arrays:
    return {name: np.array(x) for name, x in lists.items()}


def _text(x: Any, depth: int) -> str:
    """Formats dictionaries and lists on several lines, arrays on one."""
    indent = " " * (depth + 1)
    if isinstance(x, np.ndarray | np.generic):
        return json.dumps(x.tolist())
    if isinstance(x, dict) and x:
        items = [
            f"{json.dumps(name)}: {_text(value, depth + 1)}"
            for name, value in x.items()
        ]
        start, end = "{}"
    elif isinstance(x, list) and x:
        items = [_text(value, depth + 1) for value in x]
        start, end = "[]"
    else:
        return json.dumps(x)
    body = f",\n{indent}".join(items)
    return f"{start}\n{indent}{body}\n{indent[1:]}{end}"
