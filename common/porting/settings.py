"""Compares what no array shows: the settings of layers that pair."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from common.layouts import Layout
from common.porting.grouping import Entry, Group, group
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

    Two modules pair if the arrays of one go to the arrays of the other, or if
    they have no arrays and the same name in modules that pair.

    Args:
        source: one side.
        target: the other side.
        layouts: of target arrays over source arrays.
    """
    if source.model is None or target.model is None:
        return []
    pairs = _paired(layouts)
    entries = []
    for left, right in sorted(pairs):
        ours, theirs = (
            _follow(source.model, left),
            _follow(target.model, right),
        )
        entries += _compare(left, right, ours, theirs)
        children = dict(_attributes(ours)), dict(_attributes(theirs))
        for word in sorted(children[0].keys() & children[1].keys()):
            names = (_below(left, word), _below(right, word))
            has_arrays = any(
                name == names[i] or name.startswith(names[i] + ".")
                for pair in pairs
                for i, name in enumerate(pair)
            )
            if not has_arrays:
                found = children[0][word], children[1][word]
                entries += _compare(*names, *found)
    return sorted(_note(one) for one in group(entries, _always))


def _compare(left: str, right: str, ours: Any, theirs: Any) -> list[Entry]:
    """Returns an entry for each setting that differs."""
    found = settings(ours), settings(theirs)
    texts = [
        (name, _text(found[0][name]), _text(found[1][name]))
        for name in sorted(found[0].keys() & found[1].keys())
    ]
    return [
        Entry(
            (left or "model",), f"{name} {a} against {b}", (right or "model",)
        )
        for name, a, b in texts
        if a != b
    ]


def _note(one: Group) -> str:
    names = dict.fromkeys((str(one.source), str(one.target)))
    count = f" ({len(one.entries)}x)" if len(one.entries) > 1 else ""
    return f"`{' -> '.join(names)}`: {one.steps}{count}"


def _always(one: Group) -> bool:
    del one
    return True


def _below(path: str, word: str) -> str:
    return f"{path}.{word}" if path else word


def _paired(layouts: Mapping[str, Layout]) -> set[tuple[str, str]]:
    """Returns the paths of modules of which all arrays correspond."""
    ours: dict[str, set[str]] = {}
    theirs: dict[str, set[str]] = {}
    candidates = {("", "")}
    for name, layout in layouts.items():
        right = _modules(name)
        for path in right:
            theirs.setdefault(path, set()).add(name)
        for source in layout.sources:
            left = _modules(source.name)
            for path in left:
                ours.setdefault(path, set()).add(name)
            candidates |= {*zip(left, right, strict=False)}
            candidates |= {(path, path) for path in left if path in right}
    return {
        (left, right)
        for left, right in candidates
        if bool(left) == bool(right)
        and ours.get(left, set()) == theirs.get(right, set())
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
    found = {
        SAME.get(name, name): value
        for name, value in _attributes(layer)
        if _is_setting(value) and SAME.get(name, name) not in UNLIKE
    }
    if "padding" in found:
        if "Transpose" in type(layer).__name__:
            del found["padding"]  # counted at opposite ends
        else:
            found["padding"] = _padding(layer, found)
    return found


def _padding(layer: Any, found: Mapping[str, Any]) -> Any:
    """Returns the padding as numbers, if they do not depend on the input."""
    padding, sizes = found["padding"], getattr(layer, "kernel_size", ())
    if padding == "VALID":
        return 0
    plain = _text(found.get("stride", 1)) == "1"
    plain = plain and _text(found.get("dilation", 1)) == "1"
    odd = isinstance(sizes, tuple | list) and all(n % 2 for n in sizes)
    if padding == "SAME" and plain and odd and sizes:
        return tuple(n // 2 for n in sizes)
    return padding


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
        texts = list(map(_text, value)) or ["()"]
        return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e-0", "e-") if "e" in text else text
    return str(value)
