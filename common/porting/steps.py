"""The words of the grammar, and the steps and joins that they stand for."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from common.layouts import (
    Cast,
    Concatenate,
    Flip,
    Index,
    KeyData,
    Reshape,
    Shape,
    Slice,
    Stack,
    Step,
    Transpose,
    WrapKeyData,
)
from common.porting.arithmetic import Divide
from common.porting.grammar import Call

JOINS = ("concatenate", "stack")
CUTS = ("split", "unstack")


def _reshape(shape: Shape, *sizes: int) -> Step:
    known = math.prod(size for size in sizes if size != -1)
    rest = math.prod(shape) // known if known else 0
    return Reshape(tuple(rest if size == -1 else size for size in sizes))


def _transpose(shape: Shape, *axes: int) -> Step:
    return Transpose(axes or tuple(reversed(range(len(shape)))))


def _flip(shape: Shape, *axes: int) -> Step:
    del shape
    return Flip(axes)


def _slice(shape: Shape, axis: int, start: int, stop: int) -> Step:
    del shape
    return Slice(axis, start, stop)


def _index(shape: Shape, axis: int, index: int) -> Step:
    del shape
    return Index(axis, index)


def _cast(shape: Shape, source: str, target: str) -> Step:
    del shape
    return Cast(source, target)


def _key_data(shape: Shape, impl: str) -> Step:
    del shape
    return KeyData(impl)


def _wrap_key_data(shape: Shape, impl: str) -> Step:
    del shape
    return WrapKeyData(impl)


def _divide(shape: Shape, by: float) -> Step:
    del shape
    return Divide(by)


def _multiply(shape: Shape, by: float) -> Step:
    del shape
    return Divide(by, inverted=True)


BUILDERS: Mapping[str, Callable[..., Step]] = {
    "transpose": _transpose,
    "reshape": _reshape,
    "flip": _flip,
    "slice": _slice,
    "index": _index,
    "cast": _cast,
    "key_data": _key_data,
    "wrap_key_data": _wrap_key_data,
    "divide": _divide,
    "multiply": _multiply,
}
WORDS = (*BUILDERS, "copy", *JOINS, *CUTS)


def build_steps(call: Call, shape: Shape) -> tuple[Step, ...]:
    """Returns the steps that a word stands for.

    Args:
        call: a word other than those that join or cut arrays.
        shape: of the array that the step is applied to.

    Raises:
        ValueError: if there is no such word, or if it does not take the
            arguments or fit the shape.
    """
    if call == Call("copy"):
        return ()
    try:
        step = BUILDERS[call.word](
            shape, *call.arguments, **dict(call.options)
        )
        step.output(shape)
    except KeyError as error:
        raise ValueError(
            f"step: got {call.word!r}, expected one of {WORDS}. Write one of "
            "these words, with its arguments in parentheses."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"step {call}: got arguments that it does not take ({error}), "
            f'expected those of `{call.word}`. The page "Port your model" of '
            "the documentation lists them for each step."
        ) from error
    return (step,)


def axis_of(call: Call) -> int:
    """Returns the axis along which a word joins or cuts, by default 0.

    Raises:
        ValueError: if the argument is not an axis.
    """
    options = dict(call.options)
    axis = call.arguments[0] if call.arguments else options.get("axis", 0)
    allowed = {"axis", "sizes"} if call.word == "split" else {"axis"}
    if (
        type(axis) is not int
        or axis < 0
        or len(call.arguments) > 1
        or options.keys() - allowed
    ):
        raise ValueError(
            f"step {call}: got other arguments, expected one axis, counted "
            f"from 0, as in `{call.word}(1)`. Write a single number in the "
            "parentheses."
        )
    return axis


def cut(call: Call, shape: Shape, count: int) -> list[Step]:
    """Returns the steps that take an array apart.

    Args:
        call: `split` or `unstack`.
        shape: of the array.
        count: the number of pieces.

    Raises:
        ValueError: if the axis cannot be cut into as many pieces.
    """
    axis = axis_of(call)
    size = shape[axis] if axis < len(shape) else 0
    if call.word == "unstack":
        if size != count:
            raise ValueError(
                f"step {call}: got the shape {shape}, expected {count} "
                f"entries along axis {axis}, one for each name. Name another "
                "axis, or write as many names as it has entries."
            )
        return [Index(axis, i) for i in range(count)]
    sizes = dict(call.options).get("sizes")
    if sizes is None:
        sizes = (size // count,) * count
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 1:
        raise ValueError(
            f"step {call}: got the shape {shape}, expected {count} pieces "
            f"along axis {axis}. Pass the size of each piece, as in "
            "`split(0, sizes=(64, 16, 16))`."
        )
    stops = [sum(sizes[: i + 1]) for i in range(count)]
    return [
        Slice(axis, stop - n, stop)
        for n, stop in zip(sizes, stops, strict=True)
    ]


def join(call: Call, shapes: list[Shape]) -> Concatenate | Stack:
    """Returns the join that a word stands for.

    Raises:
        ValueError: if the parts do not fit together.
    """
    axis = axis_of(call)
    if call.word == "stack":
        joined: Concatenate | Stack = Stack(axis, len(shapes))
    else:
        if any(axis >= len(shape) for shape in shapes):
            raise ValueError(
                f"step {call}: got the shapes {shapes}, expected an axis "
                f"{axis} in each. Count the axes from 0, and name one that "
                "all of these shapes have."
            )
        joined = Concatenate(axis, tuple(shape[axis] for shape in shapes))
    joined.output(*shapes)
    return joined


def write_step(step: Step) -> Call:
    """Returns the word for a step; `build_steps` inverts this."""
    match step:
        case Transpose((1, 0)):
            return Call("transpose")
        case Transpose(axes):
            return Call("transpose", axes)
        case Reshape(shape):
            return Call("reshape", shape)
        case Flip(axes):
            return Call("flip", axes)
        case Divide(by, inverted):
            return Call("multiply" if inverted else "divide", (by,))
    words = {
        Slice: "slice",
        Index: "index",
        Cast: "cast",
        KeyData: "key_data",
        WrapKeyData: "wrap_key_data",
    }
    return Call(words[type(step)], dataclasses.astuple(step))


def write_join(joined: Concatenate | Stack) -> Call:
    """Returns the word for a join."""
    word = "stack" if isinstance(joined, Stack) else "concatenate"
    return Call(word, (joined.axis,) if joined.axis else ())
