"""Compares what no array shows: the settings of layers that pair."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.layouts import Layout
from common.porting.sides import Side

SAME = {
    "epsilon": "eps",
    "strides": "stride",
    "kernel_dilation": "dilation",
    "feature_group_count": "groups",
    "num_groups": "groups",
    "rate": "p",
    "negative_slope_init": "negative_slope",
}
"""The name of a setting in Equinox, by its name in Flax."""
UNLIKE = {
    "inference",
    "deterministic",
    "use_running_average",
    "axis_name",
    "name",
    "dtype",
    "param_dtype",
    "in_features",
    "out_features",
    "num_features",
    "input_size",
    "use_bias",
    "use_scale",
    "mode",
    "kernel_size",
    "promote_dtype",
}
"""Settings that arrays show, or that do not mean the same thing."""


def differing(
    source: Side, target: Side, layouts: Mapping[str, Layout]
) -> list[str]:
    """Describes the settings that differ between modules that pair.

    Two modules pair if the arrays of one go to the arrays of the other.

    Args:
        source: one side.
        target: the other side.
        layouts: of target arrays over source arrays.
    """
    if source.model is None or target.model is None:
        return []
    notes = []
    for left, right in sorted(_paired(layouts)):
        ours = settings(_follow(source.model, left))
        theirs = settings(_follow(target.model, right))
        for name in sorted(ours.keys() & theirs.keys()):
            texts = _text(ours[name]), _text(theirs[name])
            if texts[0] != texts[1]:
                shown = left if left == right else f"{left} -> {right}"
                notes.append(
                    f"`{shown or 'model'}`: {name} {texts[0]} against "
                    f"{texts[1]}"
                )
    return notes


def _paired(layouts: Mapping[str, Layout]) -> set[tuple[str, str]]:
    """Returns the paths of modules of which all arrays correspond."""
    forward: dict[str, set[str]] = {}
    backward: dict[str, set[str]] = {}
    pairs: dict[tuple[str, str], int] = {}
    for name, layout in layouts.items():
        for source in layout.sources:
            for left, right in zip(
                _modules(source.name), _modules(name), strict=False
            ):
                pairs[left, right] = 0
                forward.setdefault(left, set()).add(right)
                backward.setdefault(right, set()).add(left)
    return {
        (left, right)
        for left, right in pairs
        if forward[left] == {right} and backward[right] == {left}
    }


def _modules(name: str) -> list[str]:
    """Returns the paths of the modules that hold an array, inner first."""
    words = name.split(".")
    return [".".join(words[:i]) for i in range(len(words) - 1, -1, -1)]


def _follow(model: Any, path: str) -> Any:
    node: Any = model
    for word in path.split(".") if path else ():
        if isinstance(node, Mapping):
            node = node.get(word)
        elif hasattr(node, word):
            node = getattr(node, word)
        else:
            try:
                node = node[int(word)]
            except (TypeError, ValueError, IndexError, KeyError):
                return None
    return node


def settings(layer: Any) -> dict[str, Any]:
    """Returns the settings of a layer, by their name in Equinox."""
    return {
        SAME.get(name, name): value
        for name, value in _attributes(layer)
        if _is_setting(value) and SAME.get(name, name) not in UNLIKE
    }


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(layer):
        for field in dataclasses.fields(layer):
            yield field.name, getattr(layer, field.name, None)
    else:
        for name, value in getattr(layer, "__dict__", {}).items():
            if not name.startswith("_"):
                yield name, value


def _is_setting(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_setting(x) for x in value)
    if isinstance(value, bool | int | float | str):
        return True
    has_name = hasattr(value, "__name__") or isinstance(
        value, functools.partial
    )
    return callable(value) and has_name and not isinstance(value, type)


def _text(value: Any) -> str:
    """Returns the text of a setting, equal for settings that are equal."""
    if isinstance(value, functools.partial):
        options = [f"{k}={_text(v)}" for k, v in value.keywords.items()]
        words = [*map(_text, value.args), *options]
        return f"{_text(value.func)}({', '.join(words)})"
    if callable(value):
        return getattr(value, "__name__", repr(value))
    if isinstance(value, list | tuple):
        texts = list(map(_text, value))
        return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
    if isinstance(value, float):
        return (
            np.format_float_positional(value, trim="-")
            if (1e-3 <= abs(value) < 1e5)
            else f"{value:.17g}"
            if float(f"{value:g}") != value
            else (f"{value:g}".replace("e-0", "e-").replace("e+0", "e+"))
        )
    return str(value)
