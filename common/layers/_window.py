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


def explicit_padding(
    padding: Padding, spans: Sequence[int]
) -> str | list[tuple[int, int]]:
    """Returns a pair for each axis, unless the padding depends on the input.

    Args:
        padding: a number for all axes, a number or a pair for each axis, or
            a name: `"SAME"`, `"SAME_LOWER"`, `"VALID"` or `"CAUSAL"`.
        spans: the extent of the window along each axis.

    Returns:
        Pairs of the padding before and after each axis; or one of the names
        `"SAME"`, `"SAME_LOWER"` and `"VALID"`.

    Raises:
        ValueError: if the name is unknown, or if the number of entries is not
            the number of axes.
    """
    if padding == "CAUSAL":
        return [(span - 1, 0) for span in spans]
    if isinstance(padding, str):
        if padding in PADDINGS:
            return padding
        raise ValueError(
            f"padding: got {padding!r}, expected one of {PADDINGS}, a number "
            "or numbers. Write the name in capitals, as in 'SAME'."
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


def pads_of(
    padding: Padding,
    sizes: Sequence[int],
    spans: Sequence[int],
    stride: Sequence[int],
) -> list[tuple[int, int]]:
    """Returns the padding before and after each axis.

    Args:
        padding: see `explicit_padding`.
        sizes: the sizes of the axes.
        spans: the extent of the window along each axis.
        stride: the step of the window along each axis.

    Raises:
        ValueError: if the name is unknown, or if the number of entries is not
            the number of axes.
    """
    pads = explicit_padding(padding, spans)
    if not isinstance(pads, str):
        return pads
    if pads == "VALID":
        return [(0, 0)] * len(spans)
    pairs = []
    for size, span, step in zip(sizes, spans, stride, strict=True):
        windows = -(-size // step)
        total = max((windows - 1) * step + span - size, 0)
        less, more = total // 2, total - total // 2
        pairs.append((less, more) if pads == "SAME" else (more, less))
    return pairs


def ceil_padding(
    pads: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
) -> list[tuple[int, int]]:
    """Extends the padding, so that leftover entries form another window.

    There is no such window if it would start in the padding after the input.

    Args:
        pads: the padding before and after each axis.
        sizes: the sizes of the axes.
        window: the size of the window along each axis.
        stride: the step of the window along each axis.

    References:
        `ceil_mode` of `torch.nn.MaxPool2d`.
    """
    extended = []
    for (lower, upper), size, k, s in zip(
        pads, sizes, window, stride, strict=True
    ):
        start = -(-(lower + size + upper - k) // s) * s  # of the last window
        if start < lower + size:
            upper = max(upper, start + k - lower - size)
        extended.append((lower, upper))
    return extended
