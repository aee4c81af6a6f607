"""Pooling and flattening."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.layers._layer import Layer, extent
from common.layers._window import (
    Padding,
    ceil_padding,
    explicit_padding,
    pads_of,
    per_axis,
)
from common.protocol import Shaped


def pool(
    x: Float[Array, "B *S C"],
    init: float,
    operation: Callable[[Any, Any], Any],
    window: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    use_ceil: bool = False,
) -> Float[Array, "B *S2 C"]:
    """Reduces each window over the spatial axes.

    Args:
        x: a batch, channels last.
        init: the identity of `operation`, which fills the padding.
        operation: combines two arrays, such as `lax.add` or `lax.max`.
        window: the size of the window along each axis.
        stride: the step between two windows.
        padding: see `conv`.
        use_ceil: whether entries after the last whole window form another,
            padded window. It must start in the input or in the padding before
            it.

    References:
        `torch.nn.MaxPool2d`, whose `ceil_mode` is `use_ceil`.
    """
    stride = per_axis(stride, len(window))
    sizes = x.shape[1:-1]
    pads = pads_of(padding, sizes, window, stride)
    if use_ceil:
        pads = ceil_padding(pads, sizes, window, stride)
    return lax.reduce_window(
        x,
        init,
        operation,
        (1, *window, 1),
        (1, *stride, 1),
        [(0, 0), *pads, (0, 0)],
    )


def avg_pool(
    x: Float[Array, "B *S C"],
    window: Sequence[int],
    *,
    count_include_pad: bool = True,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    use_ceil: bool = False,
) -> Float[Array, "B *S2 C"]:
    """Computes the mean of each window.

    Args:
        x: a batch, channels last.
        window: the size of the window along each axis.
        count_include_pad: whether the zeros of the padding are counted. What
            `use_ceil` adds to the padding is not counted.
        stride: see `pool`.
        padding: see `pool`.
        use_ceil: see `pool`.

    References:
        `torch.nn.AvgPool2d`.
    """
    stride = per_axis(stride, len(window))
    sizes = x.shape[1:-1]
    pads = pads_of(padding, sizes, window, stride)
    ends = ceil_padding(pads, sizes, window, stride) if use_ceil else pads
    total = pool(x, 0.0, lax.add, window, stride=stride, padding=ends)
    if count_include_pad and ends == pads:
        return total / math.prod(window)
    counted = pads if count_include_pad else [(0, 0)] * len(window)
    sizes = [n + sum(pair) for n, pair in zip(sizes, counted, strict=True)]
    rest = [
        (lower - a, upper - b)
        for (lower, upper), (a, b) in zip(ends, counted, strict=True)
    ]
    ones = jnp.ones((1, *sizes, 1), x.dtype)
    return total / pool(
        ones, 0.0, lax.add, window, stride=stride, padding=rest
    )


def max_pool(
    x: Float[Array, "B *S C"], window: Sequence[int], **options: Any
) -> Float[Array, "B *S2 C"]:
    """Computes the maximum of each window. For the options see `pool`.

    References:
        `torch.nn.MaxPool2d`.
    """
    return pool(x, -jnp.inf, lax.max, window, **options)


def min_pool(
    x: Float[Array, "B *S C"], window: Sequence[int], **options: Any
) -> Float[Array, "B *S2 C"]:
    """Computes the minimum of each window. For the options see `pool`.

    References:
        `flax.nnx.min_pool`.
    """
    return pool(x, jnp.inf, lax.min, window, **options)


def require_blocks(target_shape: Sequence[int], size: Sequence[int]) -> None:
    """Raises a ValueError if an axis has fewer entries than blocks."""
    if any(t > n for t, n in zip(target_shape, size, strict=True)):
        raise ValueError(
            f"adaptive_pool target_shape: got {tuple(target_shape)}, "
            f"expected at most {tuple(size)}. Ask for fewer blocks, or "
            "pass a larger input."
        )


def adaptive_pool(
    x: Float[Array, "B *S C"],
    target_shape: Sequence[int],
    operation: Callable[..., Array],
) -> Float[Array, "B *S2 C"]:
    """Divides each spatial axis into blocks and reduces every block.

    The lengths of the blocks differ by at most one, and the longer ones come
    first. The axes are reduced one after the other.

    Args:
        x: a batch, channels last.
        target_shape: the number of blocks along each axis.
        operation: reduces the `axis` of an array.

    Raises:
        ValueError: if an axis has fewer entries than blocks.

    References:
        `equinox.nn.AdaptivePool`. The windows of `torch.nn.AdaptiveAvgPool2d`
        overlap where sizes do not divide.
    """
    require_blocks(per_axis(target_shape, x.ndim - 2), x.shape[1:-1])
    for axis, blocks in enumerate(per_axis(target_shape, x.ndim - 2), 1):
        width, larger = divmod(x.shape[axis], blocks)
        ends = [i * width + min(i, larger) for i in range(blocks + 1)]
        reduced = [
            operation(lax.slice_in_dim(x, start, end, axis=axis), axis=axis)
            for start, end in zip(ends, ends[1:], strict=False)
        ]
        x = jnp.stack(reduced, axis)
    return x


def adaptive_avg_pool(
    x: Float[Array, "B *S C"], target_shape: Sequence[int]
) -> Float[Array, "B *S2 C"]:
    """Computes the mean of each block; see `adaptive_pool`."""
    return adaptive_pool(x, target_shape, jnp.mean)


def adaptive_max_pool(
    x: Float[Array, "B *S C"], target_shape: Sequence[int]
) -> Float[Array, "B *S2 C"]:
    """Computes the maximum of each block; see `adaptive_pool`."""
    return adaptive_pool(x, target_shape, jnp.max)


def flatten(x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
    """Flattens each example in PyTorch's order: C, then H, then W."""
    x = jnp.transpose(x, (0, 3, 1, 2))  # (B, C, H, W)
    return lax.collapse(x, 1)


# --- rows --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pooling(Layer):
    """The base of the rows with sliding windows."""

    family = "pooling"

    window: tuple[int, ...] = (3, 2)
    stride: tuple[int, ...] = (2, 1)
    padding: Padding = ((1, 0), (0, 1))
    use_ceil: bool = False
    size: tuple[int, ...] = extent((5, 4))
    channels: int = extent(2)

    def __post_init__(self):
        pads = explicit_padding(self.padding, self.window)
        if isinstance(pads, str):
            return
        for pair, k in zip(pads, self.window, strict=True):
            if not all(0 <= p < k for p in pair):
                raise ValueError(
                    f"{self.name} padding: got {self.padding!r}, expected at "
                    f"least 0 and less than the window {self.window}. A "
                    "window needs an element of the input; reduce the "
                    "padding."
                )

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)

    def sliding(self) -> dict[str, Any]:
        """Returns the window and its options, as `pool` takes them."""
        return {
            "window": self.window,
            "stride": self.stride,
            "padding": self.padding,
            "use_ceil": self.use_ceil,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class AvgPool(_Pooling):
    """Computes the mean of each window, with or without the padding."""

    name = "avg_pool"

    count_include_pad: bool = True

    def forward(self, params, buffers, x, *, key, training):
        count = self.count_include_pad
        return avg_pool(x, **self.sliding(), count_include_pad=count), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxPool(_Pooling):
    """Computes the maximum of each window."""

    name = "max_pool"

    def forward(self, params, buffers, x, *, key, training):
        return max_pool(x, **self.sliding()), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinPool(_Pooling):
    """Computes the minimum of each window."""

    name = "min_pool"

    def forward(self, params, buffers, x, *, key, training):
        return min_pool(x, **self.sliding()), {}


IDENTITIES = {"add": 0.0, "max": -math.inf, "min": math.inf}
"""The operations for which JAX differentiates pooling, with identities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(_Pooling):
    """Reduces each window with an operation of `jax.lax`."""

    name = "pool"

    operation: Literal["add", "max", "min"] = "add"

    @property
    def init(self) -> float:
        """The identity of the operation."""
        return IDENTITIES[self.operation]

    def forward(self, params, buffers, x, *, key, training):
        operation = getattr(lax, self.operation)
        return pool(x, self.init, operation, **self.sliding()), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AdaptivePooling(Layer):
    """The base of the rows with disjoint blocks."""

    family = "pooling"

    target_shape: tuple[int, ...] = (2, 3)
    size: tuple[int, ...] = extent((5, 4))
    channels: int = extent(2)

    def __post_init__(self):
        require_blocks(self.target_shape, self.size)

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveAvgPool(_AdaptivePooling):
    """Computes the mean of each of a given number of blocks."""

    name = "adaptive_avg_pool"

    def forward(self, params, buffers, x, *, key, training):
        return adaptive_avg_pool(x, self.target_shape), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveMaxPool(_AdaptivePooling):
    """Computes the maximum of each of a given number of blocks."""

    name = "adaptive_max_pool"

    def forward(self, params, buffers, x, *, key, training):
        return adaptive_max_pool(x, self.target_shape), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePool(_AdaptivePooling):
    """Reduces each of a given number of blocks with a `jax.numpy` function."""

    name = "adaptive_pool"

    operation: Literal["sum", "min", "median"] = "sum"

    def forward(self, params, buffers, x, *, key, training):
        operation = getattr(jnp, self.operation)
        return adaptive_pool(x, self.target_shape, operation), {}
