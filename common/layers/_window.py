"""Padding and strides of a window that slides over spatial axes."""

from collections.abc import Sequence

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]
PADDINGS = ("SAME", "SAME_LOWER", "VALID", "CAUSAL")


def per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Returns one number for each axis.

    Raises:
        ValueError: if the number of values is not the number of axes.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise ValueError(
            f"spatial axes: got {len(values)} values {values!r}, expected "
            f"{axes}. Pass one value per axis of the kernel."
        )
    return values


def pads_of(
    padding: Padding,
    sizes: Sequence[int],
    spans: Sequence[int],
    stride: Sequence[int],
) -> list[tuple[int, int]]:
    """Returns the padding before and after each axis.

    Args:
        padding: a number for all axes, a number or a pair for each axis, or
            a name: `"SAME"`, `"SAME_LOWER"`, `"VALID"` or `"CAUSAL"`.
        sizes: the sizes of the axes.
        spans: the extent of the window along each axis.
        stride: the step of the window along each axis.

    Raises:
        ValueError: if the name is unknown, or if the number of entries is not
            the number of axes.
    """
    if padding == "VALID":
        return [(0, 0)] * len(spans)
    if padding == "CAUSAL":
        return [(span - 1, 0) for span in spans]
    if padding in ("SAME", "SAME_LOWER"):
        pads = []
        for size, span, step in zip(sizes, spans, stride, strict=True):
            windows = -(-size // step)
            total = max((windows - 1) * step + span - size, 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if padding == "SAME" else (more, less))
        return pads
    if isinstance(padding, str):
        raise ValueError(
            f"padding: got {padding!r}, expected one of {PADDINGS}, a number "
            "or numbers. Check the spelling and the case of the name."
        )
    if isinstance(padding, int):
        padding = (padding,) * len(spans)
    pairs = [(p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding]
    if len(pairs) != len(spans):
        raise ValueError(
            f"padding: got {padding!r}, expected {len(spans)} entries. Pass "
            "one number or pair per axis of the window."
        )
    return pairs
