"""Records how the layers of a library are constructed and called.

While recording, `__init__` and `__call__` of the public classes are replaced,
and so are the public functions. Only what the caller itself uses is recorded:
a layer that another layer constructs or calls is not.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple


class Use(NamedTuple):
    """A layer was constructed, or it was called.

    Attributes:
        group: the name of the group that the layer is in.
        layer: the public name of the class or function.
        method: `"__init__"` or `"__call__"`.
        arguments: what was passed, by the name of the parameter. Arguments
            that were left to their defaults are missing.
        target: the layer. `None` for a function.
    """

    group: str
    layer: str
    method: str
    arguments: dict[str, Any]
    target: Any = None


class Group(NamedTuple):
    """Layers of one module.

    Attributes:
        module: the module that the layers are imported from. Its functions
            are recorded if they are looked up in it while recording.
        layers: its public classes and functions, by name.
        transparent: the layers that call a function of the user. What happens
            inside of their calls is recorded.
    """

    module: ModuleType
    layers: Mapping[str, Any]
    transparent: frozenset[str] = frozenset()


@contextlib.contextmanager
def recorded(groups: Mapping[str, Group]) -> Iterator[list[Use]]:
    """Records every use of some layers by the code in the `with` statement.

    Args:
        groups: the layers, by a name of the group.

    Yields:
        The uses so far, in their order. The list grows.
    """
    uses: list[Use] = []
    busy: list[str] = []  # the layers whose code is running
    with contextlib.ExitStack() as stack:
        for group, (module, layers, transparent) in groups.items():
            for name, layer in layers.items():
                stops = name not in transparent
                record = functools.partial(
                    _wrapped, uses, busy, group, name, stops
                )
                if inspect.isclass(layer):
                    for method in ("__init__", "__call__"):
                        if hasattr(layer, method):
                            wrapped = record(getattr(layer, method), method)
                            replaced = _replaced(layer, method, wrapped)
                            stack.enter_context(replaced)
                else:
                    wrapped = record(layer, None)
                    stack.enter_context(_replaced(module, name, wrapped))
        yield uses


def parameters(layer: Any, method: str) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a class or function, without `self`.

    Args:
        layer: a public class or function.
        method: `"__init__"` or `"__call__"`. A function has parameters in its
            call only.
    """
    if not inspect.isclass(layer):
        if method == "__init__":
            return {}
        return dict(inspect.signature(layer).parameters)
    found = inspect.signature(getattr(layer, method)).parameters
    return {name: found[name] for name in list(found)[1:]}


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute, and takes the new value away at the end."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _wrapped(
    uses: list[Use],
    busy: list[str],
    group: str,
    name: str,
    stops: bool,
    original: Callable[..., Any],
    method: str | None,
) -> Callable[..., Any]:
    """Returns a method, or a function if `None`, that records its uses.

    If it `stops` the recording, what happens inside of it is not recorded.
    """
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not busy:
            bound = dict(signature.bind(*args, **kwargs).arguments)
            target = None
            if method is not None:  # the first argument is `self`
                target = bound.pop(next(iter(bound)))
            use = Use(group, name, method or "__call__", bound, target)
            uses.append(use)
        if not stops:
            return original(*args, **kwargs)
        busy.append(name)
        try:
            return original(*args, **kwargs)
        finally:
            busy.pop()

    return call
