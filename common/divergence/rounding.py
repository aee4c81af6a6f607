"""Tells what only rounding has left: a sum whose terms cancel.

The gradient of a bias before a batch norm is an example. It is zero, but two
programs that sum up in another order are left with two other tiny numbers.
"""

from collections.abc import Sequence

SUMS = {
    "add",
    "add_any",
    "conv_general_dilated",
    "cumsum",
    "dot_general",
    "reduce_sum",
    "scatter-add",
    "sub",
}
PRODUCTS = {"conv_general_dilated", "dot_general", "mul"}
# What makes zeros of zeros.
KEEPING = SUMS | {
    "abs",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "expand_dims",
    "gather",
    "integer_pow",
    "max",
    "min",
    "neg",
    "reduce_max",
    "reduce_min",
    "reshape",
    "rev",
    "scan slice",
    "scan stack",
    "sign",
    "slice",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "tanh",
    "transpose",
}
ROUNDED = KEEPING | PRODUCTS | {"div"}
# A rounding error is rarely more than this many times that of its terms.
SPREAD = 16.0


def is_rounding(
    primitive: str,
    magnitude: float,
    terms: Sequence[float],
    count: float,
    eps: float,
) -> bool:
    """Says whether a value is zero, up to rounding.

    Args:
        primitive: the operation.
        magnitude: the largest one of the value.
        terms: the largest ones of the operands, 0 if they are zero up to
            rounding themselves.
        count: how many terms each element is the sum of.
        eps: the relative error of one operation.
    """
    if not magnitude or not terms:
        return False
    if primitive in PRODUCTS and not all(terms):
        return True
    if primitive == "div" and not terms[0]:
        return True
    if primitive in KEEPING and not any(terms):
        return True
    if primitive not in SUMS:
        return False
    largest = terms[0] * terms[-1] if primitive in PRODUCTS else max(terms)
    return magnitude <= SPREAD * eps * largest * max(1.0, count) ** 0.5
