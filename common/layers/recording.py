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
        layer: the public name of the class or function.
        method: `"__init__"` or `"__call__"`.
        arguments: what was passed, by the name of the parameter. Arguments
            that were left to their defaults are missing.
        target: the layer. `None` for a function.
    """

    layer: str
    method: str
    arguments: dict[str, Any]
    target: Any = None


@contextlib.contextmanager
def recorded(
    layers: Mapping[str, Any], namespace: ModuleType
) -> Iterator[list[Use]]:
    """Records every use of some layers by the code in the `with` statement.

    Args:
        layers: public classes and functions, by name.
        namespace: the module that they are imported from. Its functions are
            recorded if they are looked up in it while recording.

    Yields:
        The uses so far, in their order. The list grows.
    """
    uses: list[Use] = []
    busy: list[str] = []  # the layers whose code is running
    with contextlib.ExitStack() as stack:
        for name, layer in layers.items():
            if inspect.isclass(layer):
                for method in ("__init__", "__call__"):
                    if hasattr(layer, method):
                        wrapped = _method(uses, busy, name, layer, method)
                        stack.enter_context(_replaced(layer, method, wrapped))
            else:
                wrapped = _function(uses, busy, name, layer)
                stack.enter_context(_replaced(namespace, name, wrapped))
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


def _method(
    uses: list[Use],
    busy: list[str],
    name: str,
    layer: type,
    method: str,
) -> Callable[..., Any]:
    original = getattr(layer, method)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not busy:
            _, *bound = signature.bind(self, *args, **kwargs).arguments.items()
            uses.append(Use(name, method, dict(bound), self))
        busy.append(name)
        try:
            return original(self, *args, **kwargs)
        finally:
            busy.pop()

    return call


def _function(
    uses: list[Use], busy: list[str], name: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not busy:
            bound = signature.bind(*args, **kwargs).arguments
            uses.append(Use(name, "__call__", dict(bound)))
        return function(*args, **kwargs)

    return call
