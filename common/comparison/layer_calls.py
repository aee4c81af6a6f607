"""How each library constructs a layer: the calls, with every setting."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.layers import Layer
from common.layers.recording import Group, Use, parameters, recorded
from common.registry import (
    find_counterpart,
    find_layer_modules,
    find_public_layers,
)

DTYPES = {"float": jnp.float32, "int": jnp.int32, "bool": jnp.bool_}
WIDTH = 76


def trace(layer: Layer, library: str) -> None:
    """Constructs and calls a library's layer on shapes, in training."""
    counterpart = find_counterpart(library, layer)
    inputs = [
        jax.ShapeDtypeStruct((2, *shaped.shape), DTYPES[shaped.kind])
        for shaped in layer.inputs
    ]
    groups: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, variable in layer.variables().items():
        groups[not variable.trainable][name] = jax.eval_shape(
            lambda key, one=variable: one.init(key, one.shape), jr.key(0)
        )

    def call(params: Any, buffers: Any, inputs: Any, key: Any) -> Any:
        return counterpart.forward(
            params, buffers, *inputs, key=key, training=True
        )

    jax.eval_shape(call, *groups, inputs, jr.key(0))


def constructions(layer: Layer, library: str, width: int = WIDTH) -> list[str]:
    """Returns the code that constructs a library's layer, as calls.

    Every setting is in it: those that the row gives, then the defaults. A
    function of the library is called instead.

    Args:
        layer: the row.
        library: `"equinox"` or `"flax"`.
        width: the largest length of a line.
    """
    groups = layer_groups(library)
    with recorded(groups) as uses:
        trace(layer, library)
    texts: dict[int, str] = {}
    nested: set[str] = set()
    found: list[str] = []
    for use in uses:
        kind = groups[use.group].layers[use.layer]
        if use.method == "__call__" and inspect.isclass(kind):
            continue
        name = f"{use.group}.{use.layer}"
        text = _code(name, use, kind, texts, nested, width)
        if use.target is not None:
            texts[id(use.target)] = text
        found.append(text)
    return [text for text in dict.fromkeys(found) if text not in nested]


def layer_groups(library: str) -> dict[str, Group]:
    """Returns the stock and the custom layers of a library.

    The names of the groups are what one writes in front of a layer's name.
    """
    modules = find_layer_modules(library)
    stock, custom = modules
    classes = {
        name: value
        for name, value in vars(modules[custom]).items()
        if inspect.isclass(value)
    }
    return {
        stock: Group(
            modules[stock],
            find_public_layers(library),
            transparent=frozenset({"Lambda"}),
        ),
        custom: Group(modules[custom], classes),
    }


def _code(
    name: str,
    use: Use,
    kind: Any,
    texts: Mapping[int, str],
    nested: set[str],
    width: int,
) -> str:
    """Returns one call as code: what was given, and then the defaults."""

    def shown(value: Any) -> str:
        if id(value) in texts:
            nested.add(texts[id(value)])
            return texts[id(value)]
        several = isinstance(value, tuple | list)
        if several and any(id(one) in texts for one in value):
            inner = ",\n".join(map(shown, value))
            return f"[\n{textwrap.indent(inner, '    ')},\n]"
        return _value(value)

    known = parameters(kind, use.method)
    given, defaults = [], []
    for argument, parameter in known.items():
        if argument in use.arguments:
            value = use.arguments[argument]
            if parameter.kind is parameter.VAR_POSITIONAL:
                given += [shown(one) for one in value]
            elif parameter.kind is not parameter.VAR_KEYWORD:
                given.append(f"{argument}={shown(value)}")
        elif parameter.default is not parameter.empty:
            defaults.append(f"{argument}={_value(parameter.default)}")
    line = f"{name}({', '.join(given)})"
    if not defaults and "\n" not in line and len(line) <= width:
        return line
    lines = [f"{name}(", *_filled(given, width)]
    if defaults:
        lines += ["    # Defaults:", *_filled(defaults, width)]
    return "\n".join([*lines, ")"])


def _filled(items: Iterable[str], width: int) -> list[str]:
    """Puts as many items on a line as fit; items of several lines alone."""
    lines: list[str] = []
    for item in items:
        text = f"{item},"
        if "\n" in text:
            lines += textwrap.indent(text, "    ").splitlines()
        elif (
            lines
            and lines[-1].endswith(",")
            and lines[-1].startswith("    ")
            and not lines[-1].startswith(("     ", "    )", "    ]"))
            and len(f"{lines[-1]} {text}") <= width
        ):
            lines[-1] += f" {text}"
        else:
            lines.append(f"    {text}")
    return lines


def _value(value: Any) -> str:
    """Returns a short text for the value of an argument."""
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return "key"
        return f"<{value.dtype} array of shape {tuple(value.shape)}>"
    if type(value).__name__ == "Rngs":
        return "rngs"
    if isinstance(value, Callable) and hasattr(value, "__name__"):
        return value.__name__
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_value, value))
        ends = "()" if isinstance(value, tuple) else "[]"
        comma = "," * (isinstance(value, tuple) and len(value) == 1)
        return f"{ends[0]}{inner}{comma}{ends[1]}"
    if isinstance(value, Mapping):
        pairs = (f"{_value(k)}: {_value(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    text = repr(value)
    short = len(text) <= 40 and "\n" not in text and " at 0x" not in text
    return text if short else f"<{type(value).__name__}>"
