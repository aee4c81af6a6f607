"""Pooling of channels-last batches in NumPy.

PyTorch: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d
    and torch.nn.AvgPool2d. The blocks of adaptive pooling are disjoint, as
    in Equinox: https://docs.kidger.site/equinox/api/nn/pooling
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case
from tests.layers.golden.convolution import each, named, sides


def largest(window):
    """The maximum of each row, by the real part."""
    best = np.argmax(window.real, axis=-1)
    return np.take_along_axis(window, best[..., None], axis=-1)[..., 0]


def smallest(window):
    """The minimum of each row, by the real part."""
    return -largest(-window)


def total(window):
    """The sum of each row."""
    return np.sum(window, axis=-1)


def average(window):
    """The mean of each row."""
    return total(window) / window.shape[-1]


def average_inside(window):
    """The mean of the elements that are not padding, which is NaN."""
    rows = window.reshape(-1, window.shape[-1])
    means = [average(row[~np.isnan(row.real)]) for row in rows]
    return np.array(means).reshape(window.shape[:-1])


def median(window):
    """The median of each row, by the real part."""
    order = np.argsort(window.real, axis=-1)
    window = np.take_along_axis(window, order, axis=-1)
    n = window.shape[-1]
    return (window[..., (n - 1) // 2] + window[..., n // 2]) / 2


OPERATIONS = {
    "add": (total, 0),
    "max": (largest, -np.inf),
    "min": (smallest, np.inf),
}


def slide(x, function, fill, *, window, stride, padding, use_ceil, end=None):
    """Applies a function to the elements of each window.

    The padding is filled with `fill`. With `use_ceil`, a window that starts in
    the input or its left padding may extend past the right padding. What lies
    there is filled with `end`, or also with `fill`.
    """
    axes = x.ndim - 2
    stride = each(stride, axes)
    pads = (
        named(padding, x.shape[1:-1], window, stride, (1,) * axes)
        if isinstance(padding, str)
        else sides(padding, axes)
    )
    size, more = [], []
    for n, k, s, (a, b) in zip(
        x.shape[1:-1], window, stride, pads, strict=True
    ):
        count = (n + a + b - k) // s + 1
        if use_ceil and (n + a + b - k) % s and count * s < n + a:
            count += 1
        size.append(count)
        more.append((0, max(0, (count - 1) * s + k - n - a - b)))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    end = fill if end is None else end
    x = np.pad(x, [(0, 0), *more, (0, 0)], constant_values=end)
    y = np.zeros((len(x), *size, x.shape[-1]), x.dtype)
    for t in itertools.product(*map(range, size)):
        here = tuple(
            slice(i * s, i * s + k)
            for i, s, k in zip(t, stride, window, strict=True)
        )
        part = np.moveaxis(x[(slice(None), *here)], -1, 1)
        y[(slice(None), *t)] = function(part.reshape(*part.shape[:2], -1))
    return y


def avg_pool(x, *, count_include_pad, size, channels, **options):
    """The mean of each window, with or without the padding.

    Elements past the right padding do not count.
    """
    if count_include_pad:
        return slide(x, average_inside, 0, end=np.nan, **options)
    return slide(x, average_inside, np.nan, **options)


def pool(x, *, operation, size, channels, **options):
    """The sum, the maximum or the minimum of each window."""
    return slide(x, *OPERATIONS[operation], **options)


def longer_first(n, blocks):
    """Splits n into blocks; the first n % blocks are longer by 1."""
    sizes = [n // blocks + (i < n % blocks) for i in range(blocks)]
    ends = np.cumsum(sizes)
    return [(int(e - s), int(e)) for s, e in zip(sizes, ends, strict=True)]


def adaptive(x, function, target_shape):
    """Applies a function to disjoint blocks, one axis after the other."""
    for axis, target in enumerate(target_shape, start=1):
        x = np.moveaxis(x, axis, -1)
        blocks = longer_first(x.shape[-1], target)
        parts = [function(x[..., a:b]) for a, b in blocks]
        x = np.moveaxis(np.stack(parts, axis=-1), -1, axis)
    return x


def adaptive_avg_pool(x, *, target_shape, **_):
    """The mean of each block."""
    return adaptive(x, average, target_shape)


def adaptive_max_pool(x, *, target_shape, **_):
    """The maximum of each block."""
    return adaptive(x, largest, target_shape)


def adaptive_pool(x, *, target_shape, operation, **_):
    """The sum, the minimum or the median of each block."""
    functions = {"sum": total, "min": smallest, "median": median}
    return adaptive(x, functions[operation], target_shape)


# --- cases -------------------------------------------------------------------


SLIDING = [
    {"size": (5,), "window": (2,), "stride": (1,), "padding": ((0, 0),)},
    {
        "size": (4, 3),
        "window": (3, 2),
        "stride": (2, 1),
        "padding": ((1, 1), (0, 1)),
    },
    {
        # Along the first axis PyTorch drops the window of the leftover entry,
        # because it would start after the input. Along the second, the last
        # window has an entry, a 0 of the padding, and one that is not counted.
        "size": (2, 4),
        "window": (1, 3),
        "stride": (2, 2),
        "padding": (0, 1),
        "use_ceil": True,
    },
    {
        "size": (2, 3, 1),
        "window": (2, 2, 1),
        "stride": (1, 1, 1),
        "padding": ((0, 0), (0, 0), (0, 0)),
    },
]


def _pools() -> Iterator[Case]:
    for layer, option, value, number in (
        *(("avg_pool", "count_include_pad", True, i) for i in (0, 1, 2)),
        ("avg_pool", "count_include_pad", False, 1),
        ("avg_pool", "count_include_pad", False, 2),
        *(("max_pool", None, "max", i) for i in (1, 2, 3)),
        *(("min_pool", None, "min", i) for i in (0, 2)),
        ("pool", "operation", "add", 1),
        ("pool", "operation", "max", 2),
        ("pool", "operation", "min", 0),
    ):
        fields = {"use_ceil": False, "channels": 2, **SLIDING[number]}
        define: Callable[..., Any] = avg_pool if layer == "avg_pool" else pool
        if option:
            fields[option] = value
        else:
            define = functools.partial(pool, operation=value)
        yield Case(
            layer=layer,
            fields=fields,
            define=define,
            inputs=((*fields["size"], 2),),
        )


ADAPTIVE = {
    "adaptive_avg_pool": adaptive_avg_pool,
    "adaptive_max_pool": adaptive_max_pool,
    "adaptive_pool": adaptive_pool,
}


def _adaptive_pools() -> Iterator[Case]:
    for layer, operation, size, target in (
        ("adaptive_avg_pool", None, (5,), (3,)),
        ("adaptive_avg_pool", None, (4, 5), (2, 2)),
        ("adaptive_max_pool", None, (7,), (4,)),
        ("adaptive_max_pool", None, (3, 4, 2), (2, 2, 1)),
        ("adaptive_pool", "sum", (5, 2), (2, 2)),
        ("adaptive_pool", "min", (5,), (2,)),
        ("adaptive_pool", "median", (5, 4), (2, 1)),
    ):
        fields = {"target_shape": target, "size": size, "channels": 2}
        if operation:
            fields["operation"] = operation
        yield Case(
            layer=layer,
            fields=fields,
            define=ADAPTIVE[layer],
            inputs=((*size, 2),),
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _pools()
    yield from _adaptive_pools()
