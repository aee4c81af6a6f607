"""`diff`: finds where two JAX functions diverge."""

import sys
from collections.abc import Sequence
from typing import Any

from common.alignment.functions import symmetric_arguments
from common.divergence.result import Diff
from common.divergence.search import DTYPES, KEPT, find_divergence
from common.errors import choose
from common.registry import LIBRARIES, find_module_paths

WEIGHTS = ("symmetric",)


def diff(
    left: Any,
    right: Any,
    *args: Any,
    right_args: Sequence[Any] | None = None,
    dtype: str | None = "float64",
    kept: int = KEPT,
    tolerance: float | None = None,
    weights: str | None = None,
    **options: Any,
) -> Diff:
    """Finds where two JAX functions diverge.

    Both functions are traced and run equation by equation. Their intermediate
    values are matched by their numbers, whatever their layout. A search from
    the outputs back to the inputs ends at the earliest values that only one
    side has. Outputs of different shapes count as equal if a permutation of
    the axes makes them equal.

    Args:
        left: a function, or a module with a `__call__`. With `weights`, a
            native model.
        right: the other function, module or model.
        args: the arguments of both.
        right_args: a tuple of arguments for `right`, if they differ from
            `args`. With it, two models can be passed as arguments, so that
            both are cast: `diff(call, call, model, x, right_args=(port, x))`.
        dtype: the dtype to run both in. In float64, rounding does not hide a
            divergence: the arithmetic of both programs is that of float64,
            whatever their own dtypes are, and only a cast to a dtype that is
            narrower than the one before rounds. For the other dtypes, the
            floating arguments and modules are cast. `None` leaves all dtypes
            unchanged.
        kept: the number of bytes of values to keep on each side. Kept values
            can be matched in any order of their elements, others only by
            their fingerprints.
        tolerance: the largest relative error of values that count as equal,
            or `None` for that of the dtypes that they passed through.
        weights: `"symmetric"` compares two native models, of either library,
            with weights that are the same in both whatever the mapping
            between their arrays is, so that models of unrelated weights can
            be compared. `args` is then one batch of inputs, and the models
            are called in inference mode. `None` uses the models' own weights.
        options: other arguments of `common.alignment.symmetric_arguments`,
            such as `left_call`, if `weights` is given.

    Returns:
        Whether the outputs agree, and otherwise the origins of the
        divergence. `print` shows the source lines of both sides.

    Raises:
        TypeError: if a function cannot be traced, or if `options` are given
            without `weights`.
        ValueError: if the outputs have no path in common.
    """
    if dtype not in DTYPES:
        raise choose("dtype", dtype, DTYPES)
    if weights is not None:
        if weights not in WEIGHTS:
            raise choose("weights", weights, WEIGHTS)
        run = {"kept": kept, "dtype": dtype, "tolerance": tolerance}
        return _diff_symmetric(left, right, args, right_args, run, options)
    if options:
        raise TypeError(
            f"diff: got the arguments {sorted(options)}, expected them with "
            '`weights` only. Pass `weights="symmetric"` as well.'
        )
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
        tolerance=tolerance,
        name_modules=name_modules,
    )


def _diff_symmetric(
    left: Any,
    right: Any,
    args: tuple[Any, ...],
    right_args: Sequence[Any] | None,
    run: dict[str, Any],
    options: dict[str, Any],
) -> Diff:
    """Compares two native models at a symmetric point."""
    if len(args) > 1 or (right_args is not None and len(right_args) != 1):
        raise ValueError(
            f"args: got {len(args)} arguments, expected one batch of inputs "
            'with `weights="symmetric"`. Pass the batch alone, and adapt the '
            "calls with `left_call` and `right_call`."
        )
    if right_args is not None:
        options = {"right_inputs": right_args[0], **options}
    xs = args[0] if args else None
    return symmetric_arguments(left, right, xs, **options).diff(**run)


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
