"""Carries the State of a run to a model that names its arrays otherwise."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.errors import StateError
from common.layouts import Layout, compose
from common.native import NativeModel
from common.porting import Plan, plan_port
from common.porting.copies import require_copies
from common.state import MODEL, State

GROUPS = ("params", "buffers", "constants")


def carry(
    state: State, rules: Any, subject: Any, current: State, like: Any
) -> State:
    """Returns a run's State under the names of another model.

    The arrays of optimizers follow the parameters that they belong to. The
    random streams of the model itself stay as they are in `current`, because
    the libraries keep them in different places.

    Args:
        state: of the run to continue.
        rules: as for `port`.
        subject: has the `model` of the user that the run continues in.
        current: a State of that model.
        like: the model of the run, or `None` if `rules` go by the names in
            the State.

    Raises:
        ValueError: naming the arrays that have no counterpart, or if the
            subject is a spec.
        StateError: if an optimizer's array cannot follow its parameter.
    """
    target = subject.model
    if target is None:
        raise ValueError(
            f"rules: got rules for the spec {subject.name!r}, expected none, "
            "because its names are the same in every library. Leave `rules` "
            "and `like` out."
        )
    source: Any = state
    arrays = state.model
    if like is not None:
        # A plan depends on values: a batch norm's first batch, for example.
        model = NativeModel(like)
        source = model.layouts.write(model.with_arrays({}), arrays)
        arrays = NativeModel(source).arrays()
    plan = plan_port(source, target.native, rules=rules, batch_norm="resume")
    require_copies(plan.copies, arrays)
    layouts = canonical_layouts(
        plan, target, None if like is None else NativeModel(like)
    )
    arrays = state.model
    groups = {
        group: {
            name: np.asarray(layouts[name].apply(arrays))
            if name in layouts
            else x
            for name, x in getattr(current, group).items()
        }
        for group in GROUPS
    }
    for name, x in derived_arrays(plan, target).items():
        for group in groups.values():
            if name in group:
                group[name] = np.asarray(x)
    rng = {
        name: x for name, x in current.rng.items() if name.startswith(MODEL)
    }
    for name, x in state.rng.items():
        if not name.startswith(MODEL):
            rng[name] = x
    opt = {
        key: _optimizer_array(key, state, current, layouts)
        for key in current.opt
    }
    return State(**groups, opt=opt, rng=rng, step=state.step).numpy()


def canonical_layouts(
    plan: Plan, target: NativeModel, source: NativeModel | None
) -> dict[str, Layout]:
    """Returns the layouts between canonical arrays of a plan.

    Args:
        plan: leads to the dotted names of the target.
        target: the model that the run continues in.
        source: the model whose dotted names the plan starts from, or `None`
            if it starts from canonical names.
    """
    layouts: Mapping[str, Layout] = plan.layouts
    if source is not None:
        from_canonical = {
            name: source.layouts.native[info.path]
            for name, info in source.infos.items()
        }
        layouts = compose(from_canonical, layouts)
    by_path = {target.infos[name].path: x for name, x in layouts.items()}
    return compose(
        by_path,
        {
            name: layout
            for name, layout in target.layouts.canonical.items()
            if all(part.name in by_path for part in layout.sources)
        },
    )


def derived_arrays(plan: Plan, target: NativeModel) -> dict[str, Any]:
    """Returns the canonical arrays that a plan gives a value."""
    made = Plan(
        {},
        {},
        {name: plan.target[name] for name in plan.derived},
        derived=plan.derived,
    ).apply({})
    by_path = {target.infos[name].path: x for name, x in made.items()}
    return {
        name: layout.apply(by_path)
        for name, layout in target.layouts.canonical.items()
        if all(part.name in by_path for part in layout.sources)
    }


def _optimizer_array(
    key: str, state: State, current: State, layouts: Mapping[str, Layout]
) -> Any:
    """Returns one array of an optimizer's state."""
    for prefix, start, name in _splits(key):
        if start + name not in current.params:
            continue
        layout = layouts.get(start + name)
        if layout is None:  # a parameter that stays as it is
            return current.opt[key]
        arrays = {
            source.name: state.opt.get(
                f"{prefix}.{source.name.removeprefix(start)}"
            )
            for source in layout.sources
        }
        if all(x is not None for x in arrays.values()):
            return _follow(key, layout, arrays)
    if key not in state.opt:
        raise StateError(
            f"optimizer state {key!r}: got nothing, expected an array. Load a "
            "State of the same optimizer."
        )
    return state.opt[key]


def _follow(key: str, layout: Layout, arrays: Mapping[str, Any]) -> Any:
    """Rearranges what an optimizer keeps for a parameter."""
    if all(arrays[x.name].shape == x.shape for x in layout.sources):
        return np.asarray(layout.apply(arrays))
    if len(arrays) == 1 and not layout.steps:
        return next(iter(arrays.values()))
    raise StateError(
        f"optimizer state {key!r}: got an array of another shape than its "
        "parameter, which the rules rearrange, expected one of that shape. "
        "Continue with a new optimizer, or use one such as `optax.adam`."
    )


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
