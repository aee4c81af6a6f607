"""The methods of a model's class, for the class of its view."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

# A view has its own life cycle, attributes and pytree.
_OWN = frozenset(dir(object)) | {
    "__annotate__",
    "__check_init__",
    "__class_getitem__",
    "__copy__",
    "__deepcopy__",
    "__getattr__",
    "__post_init__",
    "__replace__",
    "__setstate__",
}


def members(
    origin: type,
    base: type,
    fields: Collection[str],
    call: Callable[..., Any],
    read: Callable[..., Any],
) -> dict[str, Any]:
    """Returns the attributes that the class of a view takes from a model's.

    A name that the class of the model defines is the model's, also if the
    view's own library uses this name for something else.

    Args:
        origin: the class of the model.
        base: the library's class of modules, whose own methods are left out.
        fields: names that are attributes of an instance.
        call: `call(view, name, args, kwargs)` calls a method of the model.
        read: `read(view, name)` computes an attribute of the model.
    """
    found: dict[str, Any] = {}
    inherited = set(base.__mro__)
    for cls in reversed(origin.__mro__):
        if cls in inherited or cls.__module__ in ("abc", "typing"):
            continue
        for name, value in vars(cls).items():
            if name in _OWN or name in fields:
                continue
            if isinstance(value, staticmethod | classmethod):
                found[name] = staticmethod(getattr(origin, name))
            elif isinstance(value, property | functools.cached_property):
                found[name] = _property(name, value, read)
            elif callable(value) and not inspect.isclass(value):
                found[name] = _method(name, value, call)
    return found


def _method(name: str, original: Any, call: Callable[..., Any]) -> Any:
    def method(self, *args, **kwargs):
        return call(self, name, args, kwargs)

    functools.update_wrapper(method, original, updated=())
    method.__name__ = name
    # A view takes a state that the original does not take, or the reverse.
    vars(method).pop("__wrapped__", None)
    return method


def _property(name: str, original: Any, read: Callable[..., Any]) -> property:
    def get(self):
        return read(self, name)

    return property(get, doc=original.__doc__)
