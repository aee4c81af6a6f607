"""Carries the State of a run to a model that names its arrays otherwise."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from common.errors import StateError
from common.layouts import Layout, ModelLayouts, compose
from common.state import MODEL, State

Rules = Mapping[str, str | Layout] | Callable[[State], State]
"""How the arrays of one model become those of another.

Either a mapping from canonical names of the model that loads to those of the
model that was saved, or to layouts over these; names that are equal need no
entry. Or a function from the State that was saved to the one to load.
"""
GROUPS = ("params", "buffers", "constants")


def carry(state: State, rules: Rules, like: State) -> State:
    """Returns a run's State under the names of another model.

    The arrays of optimizers follow the parameters that they belong to. The
    model's own random streams stay as they are in `like`, because the
    libraries keep them in different places.

    Args:
        state: of the run to continue.
        rules: how the arrays of its model become those of the other.
        like: a State of the other model.

    Raises:
        StateError: naming arrays that have no counterpart, or whose shape is
            not the one that the rules expect.
    """
    if not isinstance(rules, Mapping):
        return rules(state)
    source = _model_arrays(state)
    layouts = _complete(rules, source, _model_arrays(like))
    made = {name: _apply(x, source, name) for name, x in layouts.items()}
    groups = {
        group: {name: made[name] for name in getattr(like, group)}
        for group in GROUPS
    }
    rng = {name: x for name, x in like.rng.items() if name.startswith(MODEL)}
    for name, x in state.rng.items():
        if not name.startswith(MODEL):
            rng[name] = x
    opt = {key: _optimizer_array(key, state, layouts) for key in like.opt}
    return State(**groups, opt=opt, rng=rng, step=state.step)


def between(
    layouts: Mapping[str, Layout], source: Any, target: Any
) -> dict[str, Layout]:
    """Returns the layouts between the canonical arrays of two models.

    Args:
        layouts: of arrays of the target by dotted name, over arrays of the
            source by dotted name, as a plan of `align` has them.
        source: a `NativeModel`.
        target: a `NativeModel`.
    """
    given: ModelLayouts = source.layouts
    wanted: ModelLayouts = target.layouts
    from_source = {
        name: given.native[info.path] for name, info in source.infos.items()
    }
    native = compose(from_source, layouts)
    by_path = {target.infos[name].path: x for name, x in native.items()}
    complete = {
        name: layout
        for name, layout in wanted.canonical.items()
        if all(part.name in by_path for part in layout.sources)
    }
    return compose(by_path, complete)


def _model_arrays(state: State) -> dict[str, Any]:
    return {
        name: x
        for group in GROUPS
        for name, x in getattr(state, group).items()
    }


def _complete(
    rules: Mapping[str, str | Layout],
    source: Mapping[str, Any],
    target: Mapping[str, Any],
) -> dict[str, Layout]:
    """Returns a layout for each array of the model that loads."""
    found: dict[str, Layout] = {}
    missing = sorted(rules.keys() - target.keys())
    for name in target:
        rule = rules.get(name, name)
        names = [rule] if isinstance(rule, str) else _names(rule)
        absent = [one for one in names if one not in source]
        if absent:
            missing.append(name)
        elif isinstance(rule, str):
            found[name] = Layout.of(rule, source[rule].shape)
        else:
            found[name] = rule
    used = {one for layout in found.values() for one in _names(layout)}
    left = sorted(source.keys() - used)
    if missing or left:
        raise StateError(
            f"rules: got no counterpart for {missing} of the model that "
            f"loads, and left {left} of the saved one, expected a counterpart "
            "for every array. Add a rule from the first name to the second."
        )
    return found


def _names(layout: Layout) -> list[str]:
    return [source.name for source in layout.sources]


def _apply(layout: Layout, arrays: Mapping[str, Any], name: str) -> Any:
    try:
        return np.asarray(layout.apply(arrays))
    except ValueError as error:
        raise StateError(
            f"rule for {name!r}: got arrays that do not fit ({error}), "
            "expected the shapes of the layout. Correct the rule."
        ) from error


def _optimizer_array(
    key: str, state: State, layouts: Mapping[str, Layout]
) -> Any:
    """Returns one array of an optimizer's state."""
    for prefix, start, name in _splits(key):
        layout = layouts.get(start + name)
        if layout is None:
            continue
        arrays = {}
        for source in layout.sources:
            if not source.name.startswith(start):
                break
            found = f"{prefix}.{source.name.removeprefix(start)}"
            if found not in state.opt:
                break
            arrays[source.name] = state.opt[found]
        else:
            shapes = [arrays[x.name].shape == x.shape for x in layout.sources]
            if all(shapes):
                return _apply(layout, arrays, key)
            if len(arrays) == 1 and not layout.steps:
                return next(iter(arrays.values()))
            raise StateError(
                f"optimizer state {key!r}: got an array of another shape than "
                "its parameter, which the rules rearrange, expected an array "
                "for each element. Continue with a new optimizer, or use one "
                "such as `optax.adam`."
            )
    if key not in state.opt:
        raise StateError(
            f"optimizer state {key!r}: got nothing, expected an array. Load a "
            "State of the same optimizer."
        )
    return state.opt[key]


def _splits(key: str) -> Iterator[tuple[str, str, str]]:
    """Yields the ways to read a key as that of a parameter, longest first.

    Each is the words before the parameter's name, the start of that name if
    the optimizer trains a part of the model only, and the rest of the name.
    """
    words = key.split(".")
    for i in range(1, len(words)):
        prefix, name = ".".join(words[:i]), ".".join(words[i:])
        yield prefix, "", name
        for j in range(1, i):
            yield prefix, ".".join(words[:j]) + ".", name
