"""`diff`: compares two JAX functions and finds where they diverge."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.divergence.result import Diff
from common.divergence.search import KEPT, find_divergence
from common.registry import LIBRARIES, find_module_paths


def diff(
    left: Callable[..., Any],
    right: Callable[..., Any],
    *args: Any,
    right_args: Sequence[Any] | None = None,
    dtype: str | None = "float64",
    kept: int = KEPT,
) -> Diff:
    """Finds where two JAX functions part.

    Both are traced, run equation by equation, and their intermediate values
    matched by their numbers, whatever their layout. The walk back from the
    outputs ends at the earliest values that only one side has. Outputs of
    other shapes count as equal where an order of the axes makes them so.

    Args:
        left: a function, or a module with a `__call__`.
        right: the other one.
        args: what both are called with.
        right_args: what the right one is called with instead, a tuple. Two
            models are passed as arguments this way, so that both are cast:
            `diff(call, call, model, x, right_args=(port, x))`.
        dtype: to run both in: floats of arguments and modules are cast, so
            that rounding hides nothing. `None` leaves them as they are.
        kept: bytes of values to keep on each side, to tell an order of
            elements from another; beyond it only fingerprints are.

    Raises:
        TypeError: if a function does not trace.
        ValueError: if the outputs have different structures.
    """
    if not isinstance(right_args, list | tuple | None):
        raise ValueError(
            f"right_args: got {type(right_args).__name__}, expected a tuple "
            "of arguments. Put it in one: `right_args=(model, x)`."
        )
    return find_divergence(
        (left, right),
        (args, args if right_args is None else right_args),
        dtype=dtype,
        kept=kept,
        name_modules=name_modules,
    )


def name_modules(trees: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replaces modules by copies that record their path in the name stack.

    A library that was never imported has no modules here.
    """
    for library in LIBRARIES:
        if library in sys.modules:
            add = find_module_paths(library)
            trees = tuple(
                tuple(map(add, tree)) if isinstance(tree, tuple) else add(tree)
                for tree in trees
            )
    return trees
