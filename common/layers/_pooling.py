"""Pooling, and the flattening behind it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.layers._layer import Layer, Side, extent
from common.layers._window import Padding, pads_of, per_axis
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
    """Reduces every window over the spatial axes.

    Args:
        x: a batch, channels last.
        init: the identity of `operation`, of which padding is made.
        operation: reduces two arrays to one: `lax.add`, `lax.max`, `lax.min`.
        window: its size along each axis.
        stride: steps between two windows.
        padding: as `conv` takes it.
        use_ceil: whether what is left over behind the last whole window makes
            another one, padded.
    """
    stride = per_axis(stride, len(window))
    sizes = x.shape[1:-1]
    pads = pads_of(padding, sizes, window, stride)
    if use_ceil:
        pads = [
            (lo, hi + s if (size + lo + hi - k) % s else hi)
            for size, (lo, hi), k, s in zip(
                sizes, pads, window, stride, strict=True
            )
        ]
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
    **options: Any,
) -> Float[Array, "B *S2 C"]:
    """Takes the mean over every window.

    Args:
        x: a batch, channels last.
        window: its size along each axis.
        count_include_pad: whether the padding, of zeros, counts.
        options: `stride`, `padding`, `use_ceil`, as `pool` takes them.

    Reference: `torch.nn.AvgPool2d`.
    """
    total = pool(x, 0.0, lax.add, window, **options)
    if count_include_pad:
        return total / math.prod(window)
    return total / pool(jnp.ones_like(x), 0.0, lax.add, window, **options)


def max_pool(
    x: Float[Array, "B *S C"], window: Sequence[int], **options: Any
) -> Float[Array, "B *S2 C"]:
    """Takes the maximum over every window, with `pool`'s options.

    Reference: `torch.nn.MaxPool2d`.
    """
    return pool(x, -jnp.inf, lax.max, window, **options)


def min_pool(
    x: Float[Array, "B *S C"], window: Sequence[int], **options: Any
) -> Float[Array, "B *S2 C"]:
    """Takes the minimum over every window, with `pool`'s options.

    Reference: `flax.nnx.min_pool`.
    """
    return pool(x, jnp.inf, lax.min, window, **options)


def adaptive_pool(
    x: Float[Array, "B *S C"],
    target_shape: Sequence[int],
    operation: Callable[..., Array],
) -> Float[Array, "B *S2 C"]:
    """Reduces disjoint blocks, as many along each axis as asked for.

    The blocks of an axis are as equal as can be, the larger ones in front.
    One axis is reduced after the other.

    Args:
        x: a batch, channels last.
        target_shape: blocks along each axis, at most its size.
        operation: called with an array and an `axis` to reduce.

    Raises:
        ValueError: if there are more blocks than entries.

    Reference: `equinox.nn.AdaptivePool`. The windows of
        `torch.nn.AdaptiveAvgPool2d` overlap where sizes do not divide.
    """
    for axis, blocks in enumerate(per_axis(target_shape, x.ndim - 2), 1):
        if blocks > x.shape[axis]:
            raise ValueError(
                f"adaptive_pool target_shape: got {tuple(target_shape)}, "
                f"expected at most {x.shape[1:-1]}. Lower it."
            )
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
    """Takes the mean of each block; see `adaptive_pool`."""
    return adaptive_pool(x, target_shape, jnp.mean)


def adaptive_max_pool(
    x: Float[Array, "B *S C"], target_shape: Sequence[int]
) -> Float[Array, "B *S2 C"]:
    """Takes the maximum of each block; see `adaptive_pool`."""
    return adaptive_pool(x, target_shape, jnp.max)


def flatten(x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
    """Flattens each example in PyTorch's order: C, then H, then W."""
    x = jnp.transpose(x, (0, 3, 1, 2))  # (B, C, H, W)
    return x.reshape(x.shape[0], -1)


# --- rows -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pooling(Layer):
    """What the rows of sliding windows have in common."""

    family = "pooling"

    window: tuple[int, ...] = (3, 2)
    stride: tuple[int, ...] = (2, 1)
    padding: Padding = ((1, 0), (0, 1))
    use_ceil: bool = False
    size: tuple[int, ...] = extent((5, 4))
    channels: int = extent(2)

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)

    def sliding(self) -> dict[str, Any]:
        """Returns the options of `pool`."""
        return {
            "window": self.window,
            "stride": self.stride,
            "padding": self.padding,
            "use_ceil": self.use_ceil,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class AvgPool(_Pooling):
    """The mean over every window, with or without the padding."""

    equinox = Side(
        ("AvgPool1d", "AvgPool2d", "AvgPool3d"),
        "composition",
        by="AvgPool, over AvgPool of ones where padding does not count",
        page="pool",
    )
    flax = Side(("avg_pool",), "settings", page="pooling")
    same = {"kernel_size": "window_shape", "stride": "strides"}

    count_include_pad: bool = True

    def forward(self, params, buffers, x, *, key, training):
        count = self.count_include_pad
        return avg_pool(x, **self.sliding(), count_include_pad=count), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxPool(_Pooling):
    """The maximum over every window."""

    equinox = Side(
        ("MaxPool1d", "MaxPool2d", "MaxPool3d"), "settings", page="pool"
    )
    flax = Side(("max_pool",), "settings", page="pooling")
    same = {"kernel_size": "window_shape", "stride": "strides"}

    def forward(self, params, buffers, x, *, key, training):
        return max_pool(x, **self.sliding()), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinPool(_Pooling):
    """The minimum over every window."""

    equinox = Side((), "composition", by="Pool(jnp.inf, lax.min)")
    flax = Side(("min_pool",), "settings", page="pooling")

    def forward(self, params, buffers, x, *, key, training):
        return min_pool(x, **self.sliding()), {}


IDENTITIES = {"add": 0.0, "max": -math.inf, "min": math.inf}
"""Operations of `lax` that pooling with them can be differentiated for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(_Pooling):
    """An operation of `lax` over every window, from its identity."""

    equinox = Side(("Pool",), "settings", page="pool")
    flax = Side(("pool",), "settings", page="pooling")
    same = {
        "kernel_size": "window_shape",
        "stride": "strides",
        "operation": "reduce_fn",
    }

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
    """What the rows of disjoint blocks have in common."""

    family = "pooling"
    flax = Side((), "composition", by="jnp.array_split")

    target_shape: tuple[int, ...] = (2, 3)
    size: tuple[int, ...] = extent((5, 4))
    channels: int = extent(2)

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveAvgPool(_AdaptivePooling):
    """The mean of as many disjoint blocks as asked for."""

    equinox = Side(
        ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
        page="pool",
    )

    def forward(self, params, buffers, x, *, key, training):
        return adaptive_avg_pool(x, self.target_shape), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveMaxPool(_AdaptivePooling):
    """The maximum of as many disjoint blocks as asked for."""

    equinox = Side(
        ("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"),
        page="pool",
    )

    def forward(self, params, buffers, x, *, key, training):
        return adaptive_max_pool(x, self.target_shape), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePool(_AdaptivePooling):
    """A reduction of `jax.numpy` of as many disjoint blocks as asked for."""

    equinox = Side(("AdaptivePool",), page="pool")

    operation: Literal["sum", "min", "median"] = "sum"

    def forward(self, params, buffers, x, *, key, training):
        operation = getattr(jnp, self.operation)
        return adaptive_pool(x, self.target_shape, operation), {}
