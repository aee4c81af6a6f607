"""Recognizes values that are zero except for rounding errors.

They come from sums whose terms cancel. An example is the gradient of a bias
before batch normalization: it is zero, but two programs that sum in a
different order compute two different tiny numbers.
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
# Primitives that map zeros to zeros.
ZERO_PRESERVING = SUMS | {
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
ROUNDED = ZERO_PRESERVING | PRODUCTS | {"div"}
# The rounding error of a sum is rarely more than this many times the error of
# its terms.
SPREAD = 16.0


def is_rounding(
    primitive: str,
    magnitude: float,
    terms: Sequence[float],
    count: float,
    eps: float,
) -> bool:
    """Whether a value is zero, except for rounding errors.

    Args:
        primitive: the operation that computed it.
        magnitude: the largest magnitude of the value.
        terms: the largest magnitude of each operand, 0 if the operand is
            zero except for rounding errors itself.
        count: the number of terms that each element is the sum of.
        eps: the relative error of one operation.
    """
    if not magnitude or not terms:
        return False
    if primitive in PRODUCTS and not all(terms):
        return True
    if primitive == "div" and not terms[0]:
        return True
    if primitive in ZERO_PRESERVING and not any(terms):
        return True
    if primitive not in SUMS:
        return False
    largest = terms[0] * terms[-1] if primitive in PRODUCTS else max(terms)
    return magnitude <= SPREAD * eps * largest * max(1.0, count) ** 0.5
