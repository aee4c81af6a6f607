"""The steps of rules as functions, for rules in a dict.

    {"blocks.{i}.attn.qkv": split("layer.{i}.attention.{q,k,v}_proj")}

Each function returns text: the step, an arrow, and what follows. They are
read from the outside in, from the source to the target.
"""

from typing import Any

import numpy as np

from common.porting.grammar import ARROW, Call


def split(then: str, axis: int = 0, sizes: tuple[int, ...] = ()) -> str:
    """Cuts an array into one piece for each name of the target."""
    options = (("sizes", tuple(sizes)),) if sizes else ()
    return f"{Call('split', (axis,), options)} {ARROW} {then}"


def unstack(then: str, axis: int = 0) -> str:
    """Takes the entries of an axis apart, one for each name."""
    return f"{Call('unstack', (axis,))} {ARROW} {then}"


def concatenate(then: str, axis: int = 0) -> str:
    """Joins the arrays of the source along an axis."""
    return f"{Call('concatenate', (axis,))} {ARROW} {then}"


def stack(then: str, axis: int = 0) -> str:
    """Joins the arrays of the source along a new axis."""
    return f"{Call('stack', (axis,))} {ARROW} {then}"


def transpose(then: str, *axes: int) -> str:
    """Permutes the axes, or reverses them."""
    return f"{Call('transpose', axes)} {ARROW} {then}"


def reshape(then: str, *sizes: int) -> str:
    """Gives the array another shape; one size may be -1."""
    return f"{Call('reshape', sizes)} {ARROW} {then}"


def derive(value: Any) -> str:
    """Gives the array of this name a value: a number, or an array."""
    return str(Call("derive", (np.asarray(value).tolist(),)))
