"""Names the modules that a function closes over."""

import functools
import types
from collections.abc import Callable
from typing import Any

# Functions that a function closes over are entered this many times.
MAX_DEPTH = 3


def with_named_modules(
    function: Any, name_modules: Callable[[Any], Any], depth: int = 0
) -> Any:
    """Returns a function whose modules record their path in the name stack.

    Args:
        function: the function, whose modules may be in its closure, among
            the global names that it uses, or bound by `functools.partial`.
        name_modules: replaces the modules in a tuple by such copies.
        depth: how many functions have been entered so far.

    Returns:
        A copy of the function, or the function itself if it has no modules.
    """

    def named(value: Any) -> Any:
        if isinstance(value, types.FunctionType | functools.partial):
            if depth == MAX_DEPTH:
                return value
            return with_named_modules(value, name_modules, depth + 1)
        if isinstance(value, list | tuple | dict | types.ModuleType | type):
            return value
        return name_modules((value,))[0]

    if isinstance(function, functools.partial):
        return functools.partial(
            named(function.func),
            *map(named, function.args),
            **{key: named(value) for key, value in function.keywords.items()},
        )
    if not isinstance(function, types.FunctionType):
        return function
    cells = [_renamed(cell, named) for cell in function.__closure__ or ()]
    used = [
        name
        for name in function.__code__.co_names
        if name in function.__globals__
        and not isinstance(function.__globals__[name], types.FunctionType)
    ]
    names = {name: named(function.__globals__[name]) for name in used}
    changed = any(
        value is not function.__globals__[name]
        for name, value in names.items()
    ) or any(
        new is not old
        for new, old in zip(cells, function.__closure__ or (), strict=True)
    )
    if not changed:
        return function
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        tuple(cells),
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    return copy


def _renamed(cell: Any, named: Callable[[Any], Any]) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # a name that was never assigned
        return cell
    new = named(value)
    return cell if new is value else types.CellType(new)
