"""Random architectures as data, and how each library runs them.

An architecture is a list of steps. Each step calls layers of the layer table,
which both libraries construct. Where the layers are kept is drawn for each
library, so that names, containers and orders differ.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layers import Layer
from common.layers.table import LAYERS
from common.registry import find_constructors

Slot = tuple[int, int]
"""The index of a step, and of a layer within it."""
Path = tuple[str | int, ...]
"""Where a layer is kept: an attribute, or also an index or a key."""

EQUINOX, FLAX = find_constructors("equinox"), find_constructors("flax")

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}
OTHER = {
    "tanh": "softplus",
    "gelu": "silu",
    "silu": "gelu",
    "softplus": "tanh",
}
"""The function that stands in for each in a model with a fault."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the layer table and its fields, which are not checked yet.

    Checking types draws random numbers, which is not allowed while Hypothesis
    draws.
    """

    name: str
    fields: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, name: str, **fields: Any) -> "Row":
        """Makes a row from keywords."""
        return cls(name, tuple(fields.items()))

    @property
    def layer(self) -> Layer:
        """The row of the table."""
        return LAYERS[self.name](**dict(self.fields))

    def options(self) -> dict[str, Any]:
        """Returns the arguments of the constructors."""
        return self.layer.options()

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={x}" for name, x in self.fields)
        return f"{self.name}({fields})"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an architecture.

    Attributes:
        kind: `"apply"`, `"residual"`, `"sum"`, `"gate"`, `"attend"`,
            `"repeat"`, `"flatten"` or `"mean"`.
        rows: the layers that it calls.
        function: the name of the function that follows.
        count: how many layers a step of kind `"repeat"` has.
        stacked: whether the Equinox model stacks and scans them.
        shape: the shape of an example that `"flatten"` gets.
    """

    kind: str
    rows: tuple[Row, ...] = ()
    function: str = "identity"
    count: int = 1
    stacked: bool = False
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        rows = ", ".join(str(row) for row in self.rows)
        times = f" x{self.count}" if self.kind == "repeat" else ""
        stacked = " (stacked)" if self.stacked else ""
        return f"{self.kind}{times}{stacked}[{rows}] {self.function}".rstrip()

    def faults(self) -> list["Step"]:
        """Returns steps that compute something else."""
        made = []
        if self.function in OTHER:
            other = OTHER[self.function]
            made.append(dataclasses.replace(self, function=other))
        if self.kind in ("residual", "sum", "attend"):
            kind = f"{self.kind} with a fault"
            made.append(dataclasses.replace(self, kind=kind))
        for row in self.rows:
            if row.name.endswith("norm"):
                row = Row.of(row.name, **dict(row.fields), eps=1e-2)
                made.append(dataclasses.replace(self, rows=(row,)))
        return made


def left_slots(steps: Sequence[Step]) -> list[tuple[Slot, Row]]:
    """Returns the layers that the Equinox model keeps."""
    return [
        ((i, j), step.rows[j if step.kind != "repeat" else 0])
        for i, step in enumerate(steps)
        for j in range(
            len(step.rows)
            if step.kind != "repeat"
            else (1 if step.stacked else step.count)
        )
    ]


def right_slots(steps: Sequence[Step]) -> list[tuple[Slot, Row]]:
    """Returns the layers that the NNX module keeps."""
    return left_slots(
        [dataclasses.replace(step, stacked=False) for step in steps]
    )


def kept(places: Mapping[Slot, Path], layers: Mapping[Slot, Any]) -> Any:
    """Puts layers into lists and dicts, by the name of the attribute."""
    made: dict[str, Any] = {}
    for slot, path in places.items():
        if len(path) == 1:
            made[str(path[0])] = layers[slot]
        elif isinstance(path[1], int):
            made.setdefault(str(path[0]), []).append(layers[slot])
        else:
            made.setdefault(str(path[0]), {})[path[1]] = layers[slot]
    return made


def found(native: Any, path: Path) -> Any:
    """Returns the layer at a path."""
    x = getattr(native, str(path[0]))
    return x[path[1]] if len(path) > 1 else x


def left_layer(row: Row, number: int) -> Any:
    """Makes a layer of the Equinox model."""
    make = functools.partial(EQUINOX[row.name].make, **row.options())
    if row.name == "batch_norm":  # its state belongs to one model
        return make(key=jr.key(0))
    if row not in _LEFT:
        _LEFT[row] = eqx.filter_eval_shape(make, key=jr.key(0))
    return jax.tree.map(functools.partial(_drawn, number), _LEFT[row])


def right_layer(row: Row, number: int, rngs: nnx.Rngs) -> Any:
    """Makes a layer of the NNX module."""
    make = functools.partial(FLAX[row.name].make, **row.options())
    if row.name == "batch_norm":
        return make(rngs=rngs)
    if row not in _RIGHT:
        _RIGHT[row] = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    graph, state = _RIGHT[row]
    draw = functools.partial(_drawn, number + 50)
    return nnx.merge(graph, jax.tree.map(draw, state))


_LEFT: dict[Row, Any] = {}
_RIGHT: dict[Row, Any] = {}
"""Layers without values, as drawing these compiles many programs."""


def _drawn(number: int, x: Any) -> Any:
    """Returns random values of the shape of an array."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return x
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jr.key(0)
    if not jnp.issubdtype(x.dtype, jnp.floating):  # a count
        return jax.device_put(np.zeros(x.shape, x.dtype))
    rng = np.random.default_rng((number, *x.shape))
    values = rng.uniform(0.5, 1.5, x.shape)
    if len(x.shape) > 1:
        values = rng.normal(size=x.shape)
    return jax.device_put(values.astype(x.dtype))


def _stack(*xs: Any) -> Any:
    if not eqx.is_array(xs[0]):
        return xs[0]
    return jax.device_put(np.stack([np.asarray(x) for x in xs]))


def make_left(steps: Sequence[Step], places: Mapping[Slot, Path]) -> Any:
    """Makes the Equinox model, with its state if it has one."""

    def make():
        layers = {}
        for number, ((i, j), row) in enumerate(left_slots(steps)):
            if steps[i].stacked:
                numbers = range(number, number + steps[i].count)
                layers[i, j] = jax.tree.map(
                    _stack, *(left_layer(row, n) for n in numbers)
                )
            else:
                layers[i, j] = left_layer(row, number)
        attributes = kept(places, layers)
        body = {"__annotations__": dict.fromkeys(attributes, Any)}
        return type("Net", (eqx.Module,), body)(**attributes)

    names = {row.name for step in steps for row in step.rows}
    if "batch_norm" in names:
        return eqx.nn.make_with_state(make)()
    return make()


def left_call(
    steps: Sequence[Step], places: Mapping[Slot, Path]
) -> Callable[..., Any]:
    """Makes the function that calls the Equinox model on a batch."""

    def call(native, xs, *, training, key=None):
        key = jr.key(0) if key is None else key
        model, state = native if isinstance(native, tuple) else (native, None)
        model = eqx.nn.inference_mode(model, not training)
        x = xs

        def layer(i, j, *args):
            nonlocal state
            rows = steps[i].rows
            row = rows[j if j < len(rows) else 0]
            one = found(model, places[i, j])
            y, state = EQUINOX[row.name].call(one, state, *args, key=key)
            return y

        def tokens(i, j, x):
            """Calls a layer on each token."""
            if steps[i].rows[0].name in ON_SEQUENCES or x.ndim != 3:
                return layer(i, j, x)
            y = layer(i, j, x.reshape(-1, x.shape[-1]))
            return y.reshape(*x.shape[:2], -1)

        for i, step in enumerate(steps):
            function = FUNCTIONS[step.function]
            if step.kind == "apply":
                x = function(tokens(i, 0, x))
            elif step.kind == "residual":
                x = x + function(tokens(i, 0, x))
            elif step.kind == "sum":
                x = function(tokens(i, 0, x)) + function(tokens(i, 1, x))
            elif step.kind == "gate":
                x = jax.nn.sigmoid(tokens(i, 0, x)) * tokens(i, 1, x)
            elif step.kind == "attend":
                x = x + layer(i, 0, x, x, x)
            elif step.kind == "flatten":
                flat = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)
                x = function(layer(i, 0, flat))
            elif step.kind == "mean":
                x = x.mean(tuple(range(1, x.ndim - 1)))
            elif step.stacked:
                stack = found(model, places[i, 0])
                arrays, static = eqx.partition(stack, eqx.is_array)
                shape = x.shape

                def body(y, arrays, static=static, function=function):
                    one = eqx.combine(arrays, static)
                    return y + function(jax.vmap(one)(y)), None

                flat, _ = jax.lax.scan(body, x.reshape(-1, shape[-1]), arrays)
                x = flat.reshape(shape)
            else:
                for j in range(step.count):
                    x = x + function(tokens(i, j, x))
        return x, state

    return call


class Net(nnx.Module):
    """The NNX module of an architecture."""

    def __init__(self, steps, places, *, rngs):
        self.steps, self.places = tuple(steps), nnx.static(dict(places))
        layers = {
            slot: right_layer(row, number, rngs)
            for number, (slot, row) in enumerate(right_slots(steps))
        }
        for name, x in kept(places, layers).items():
            wrap = {list: nnx.List, dict: nnx.Dict}.get(type(x))
            setattr(self, name, wrap(x) if wrap else x)

    def call_layer(self, i, j, *args):
        """Calls a layer of a step."""
        rows = self.steps[i].rows
        row = rows[j if j < len(rows) else 0]
        call = FLAX[row.name].call
        return call(found(self, self.places[i, j]), *args, key=jr.key(0))

    def __call__(self, x):
        for i, step in enumerate(self.steps):
            act = FUNCTIONS[step.function]
            match step.kind:
                case "apply" | "residual with a fault":
                    x = act(self.call_layer(i, 0, x))
                case "residual":
                    x = act(self.call_layer(i, 0, x)) + x
                case "sum":
                    x = act(self.call_layer(i, 0, x)) + act(
                        self.call_layer(i, 1, x)
                    )
                case "sum with a fault":
                    x = act(self.call_layer(i, 0, x)) - act(
                        self.call_layer(i, 1, x)
                    )
                case "gate":
                    gate = 1 / (1 + jnp.exp(-self.call_layer(i, 0, x)))
                    x = self.call_layer(i, 1, x) * gate
                case "attend":
                    x = self.call_layer(i, 0, x, x, x) + x
                case "attend with a fault":
                    x = self.call_layer(i, 0, x, x, x)
                case "flatten":
                    x = act(self.call_layer(i, 0, x.reshape(len(x), -1)))
                case "mean":
                    x = jnp.mean(x.reshape(len(x), -1, x.shape[-1]), axis=1)
                case "repeat":
                    for j in range(step.count):
                        x = act(self.call_layer(i, j, x)) + x
        return x


ON_SEQUENCES = frozenset({"rnn", "bidirectional", "embedding"})
"""The rows that take a sequence rather than a token."""
