"""`diff`: finds where two JAX functions diverge."""

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
    """Finds where two JAX functions diverge.

    Both functions are traced and run equation by equation. Their intermediate
    values are matched by their numbers, whatever their layout. A search from
    the outputs back to the inputs ends at the earliest values that only one
    side has. Outputs of different shapes count as equal if a permutation of
    the axes makes them equal.

    Args:
        left: a function, or a module with a `__call__`.
        right: the other function or module.
        args: the arguments of both.
        right_args: a tuple of arguments for `right`, if they differ from
            `args`. With it, two models can be passed as arguments, so that
            both are cast: `diff(call, call, model, x, right_args=(port, x))`.
        dtype: the dtype to run both in. Floating arguments and modules are
            cast to it. In float64, rounding does not hide a divergence.
            `None` leaves all dtypes unchanged.
        kept: the number of bytes of values to keep on each side. Kept values
            can be matched in any order of their elements, others only by
            their fingerprints.

    Raises:
        TypeError: if a function cannot be traced.
        ValueError: if the outputs have different structures.
    """
    if not isinstance(right_args, list | tuple | None):
        raise ValueError(
            f"right_args: got {type(right_args).__name__}, expected a tuple "
            "of arguments. Pass a tuple, as in `right_args=(model, x)`."
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

    A library that was never imported cannot have modules among the arguments,
    and is not imported here.
    """
    for library in LIBRARIES:
        if library in sys.modules:
            add = find_module_paths(library)
            trees = tuple(
                tuple(map(add, tree)) if isinstance(tree, tuple) else add(tree)
                for tree in trees
            )
    return trees
