"""Normalization of each example by its own statistics."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from common.layers._initial import ones, zeros
from common.layers._layer import Layer, extent
from common.protocol import Shaped, Variable


def affine_variables(
    shape: tuple[int, ...], *, weight: bool = True, bias: bool = True
) -> dict[str, Variable]:
    """Returns a weight of ones and a bias of zeros, or one of them."""
    variables = {}
    if weight:
        variables["weight"] = Variable(shape, ones, wide=True)
    if bias:
        variables["bias"] = Variable(shape, zeros, wide=True)
    return variables


def apply_affine(
    x: Float[Array, "..."],
    weight: Float[Array, "..."] | None,
    bias: Float[Array, "..."] | None,
) -> Float[Array, "..."]:
    """Multiplies by a weight and adds a bias, if they are not None."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def widen(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Casts an array to float32 if its dtype is narrower."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def statistics(
    x: Float[Array, "*S"],
    axes: tuple[int, ...],
    mask: Bool[Array, "*#S"] | None = None,
) -> tuple[Float[Array, "*S2"], Float[Array, "*S2"]]:
    """Returns the mean and the biased variance over some axes, of length 1.

    They are computed in float32 or wider. Elements excluded by a mask do not
    contribute, and have no gradient.
    """
    x = widen(x)
    if mask is not None:
        # The gradient of the square is multiplied by 0 where the mask
        # excludes an element, and 0 times NaN would be NaN.
        x = jnp.where(mask, x, 0)
    mean = jnp.mean(x, axes, keepdims=True, where=mask)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True, where=mask)
    return mean, var


def standardize(
    x: Float[Array, "*S"],
    mean: Float[Array, "*#S"],
    var: Float[Array, "*#S"],
    eps: float,
    weight: Float[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    mask: Bool[Array, "*#S"] | None = None,
) -> Float[Array, "*S"]:
    """Computes `(x - mean) / sqrt(var + eps) * weight + bias`.

    The result is computed in float32 or wider, and has the dtype of `x`.
    Elements excluded by a mask are normalized like the others. If such an
    element is NaN or infinite, the result has no gradient, so that a loss
    that does not depend on it has a finite gradient.
    """

    def apply(x):
        y = (widen(x) - mean) / jnp.sqrt(var + eps)
        return apply_affine(y, weight, bias).astype(x.dtype)

    if mask is None:
        return apply(x)
    lost = ~(mask | jnp.isfinite(x))
    return jnp.where(
        lost, lax.stop_gradient(apply(x)), apply(jnp.where(lost, 0, x))
    )


def layer_norm(
    x: Float[Array, "B *S"],
    weight: Float[Array, "*S"] | None = None,
    bias: Float[Array, "*S"] | None = None,
    *,
    shape: tuple[int, ...],
    eps: float,
    mask: Bool[Array, "#B *#S"] | None = None,
) -> Float[Array, "B *S"]:
    """Computes `(x - mean) / sqrt(var + eps) * weight + bias`.

    The statistics are those of each example over its last axes, whose sizes
    are `shape`.

    References:
        Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450;
        `torch.nn.functional.layer_norm`. The mask is that of
        `flax.nnx.LayerNorm`.
    """
    axes = tuple(range(-len(shape), 0))
    return standardize(x, *statistics(x, axes, mask), eps, weight, bias, mask)


def rms_norm(
    x: Float[Array, "B *S"],
    weight: Float[Array, "*S"] | None = None,
    bias: Float[Array, "*S"] | None = None,
    *,
    shape: tuple[int, ...],
    eps: float,
    mask: Bool[Array, "#B *#S"] | None = None,
) -> Float[Array, "B *S"]:
    """Computes `x / sqrt(mean(x**2) + eps) * weight + bias`.

    The mean is taken for each example over its last axes, whose sizes are
    `shape`.

    References:
        Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019,
        arXiv:1910.07467. The bias is that of `equinox.nn.RMSNorm`, and the
        mask is that of `flax.nnx.RMSNorm`.
    """
    axes = tuple(range(-len(shape), 0))
    kept = x if mask is None else jnp.where(mask, x, 0)
    square = jnp.square(widen(kept))
    square = jnp.mean(square, axes, keepdims=True, where=mask)
    return standardize(
        x, jnp.zeros_like(square), square, eps, weight, bias, mask
    )


def group_norm(
    x: Float[Array, "B *S C"],
    weight: Float[Array, " C"] | None = None,
    bias: Float[Array, " C"] | None = None,
    *,
    groups: int,
    eps: float,
    mask: Bool[Array, "#B *#S C"] | None = None,
) -> Float[Array, "B *S C"]:
    """Computes `(x - mean) / sqrt(var + eps) * weight + bias`.

    The statistics are those of each example and each group of `C / groups`
    consecutive channels, over the spatial axes.

    References:
        Wu and He, "Group Normalization", 2018, arXiv:1803.08494. The mask is
        that of `flax.nnx.GroupNorm`.
    """
    channels = x.shape[-1]

    def split(x):
        return x.reshape(*x.shape[:-1], groups, channels // groups)

    axes = (*range(1, x.ndim - 1), x.ndim)
    mask = None if mask is None else split(mask)
    moments = statistics(split(x), axes, mask)
    weight, bias = (
        None if p is None else p.reshape(groups, -1) for p in (weight, bias)
    )
    y = standardize(split(x), *moments, eps, weight, bias, mask)
    return y.reshape(x.shape)


def instance_norm(
    x: Float[Array, "B *S C"],
    weight: Float[Array, " C"] | None = None,
    bias: Float[Array, " C"] | None = None,
    *,
    eps: float,
    mask: Bool[Array, "#B *#S #C"] | None = None,
) -> Float[Array, "B *S C"]:
    """Computes `(x - mean) / sqrt(var + eps) * weight + bias`.

    The statistics are those of each example and each channel, over the
    spatial axes.

    References:
        Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016,
        arXiv:1607.08022. The mask is that of `flax.nnx.InstanceNorm`.
    """
    axes = tuple(range(1, x.ndim - 1))
    return standardize(x, *statistics(x, axes, mask), eps, weight, bias, mask)


def offset_along(
    x: Any, axes: tuple[int, ...], eps: float, mask: Any = None
) -> float:
    """Returns the largest |mean| / sqrt(var + eps) along some axes."""
    mean, var = statistics(jnp.asarray(x), axes, mask)
    ratio = jnp.abs(mean) / jnp.sqrt(var + eps)
    return float(jnp.max(ratio, initial=0.0))


def draw_mask(
    rng: np.random.Generator, rows: int, elements: int
) -> np.ndarray:
    """Draws masks that keep at least three elements of each row."""
    three = np.tile(np.arange(elements) < 3, (rows, 1))
    return rng.permuted(three, axis=1) | (rng.random(three.shape) < 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerNorm(Layer):
    """Normalizes each example over all its axes.

    With `masked`, a second input selects the elements that contribute to the
    statistics.
    """

    name = "layer_norm"
    family = "normalization"

    shape: tuple[int, ...] = (5,)
    eps: float = 1e-5
    use_weight: bool = True
    use_bias: bool = True
    masked: bool = False

    @property
    def inputs(self):
        mask = (Shaped(self.shape, "bool"),) if self.masked else ()
        return (Shaped(self.shape), *mask)

    def variables(self):
        return affine_variables(
            self.shape, weight=self.use_weight, bias=self.use_bias
        )

    def draw(self, rng, batch_size):
        x = rng.normal(size=(batch_size, *self.shape))
        if not self.masked:
            return (x,)
        mask = draw_mask(rng, batch_size, math.prod(self.shape))
        return x, mask.reshape(x.shape)

    def forward(self, params, buffers, x, mask=None, *, key, training):
        y = layer_norm(x, **params, shape=self.shape, eps=self.eps, mask=mask)
        return y, {}

    def offset(self, x, mask=None):
        axes = tuple(range(1, len(self.shape) + 1))
        return offset_along(x, axes, self.eps, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSNorm(Layer):
    """Divides each example by its root mean square."""

    name = "rms_norm"
    family = "normalization"

    shape: tuple[int, ...] = (5,)
    eps: float = 1e-5
    use_weight: bool = True
    use_bias: bool = False

    @property
    def inputs(self):
        return (Shaped(self.shape),)

    def variables(self):
        return affine_variables(
            self.shape, weight=self.use_weight, bias=self.use_bias
        )

    def forward(self, params, buffers, x, *, key, training):
        return rms_norm(x, **params, shape=self.shape, eps=self.eps), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupNorm(Layer):
    """Normalizes each group of channels of each example."""

    name = "group_norm"
    family = "normalization"

    groups: int = 2
    channels: int = 6
    eps: float = 1e-5
    channelwise_affine: bool = True
    size: tuple[int, ...] = extent((2,))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)

    def variables(self):
        affine = self.channelwise_affine
        return affine_variables((self.channels,), weight=affine, bias=affine)

    def forward(self, params, buffers, x, *, key, training):
        return group_norm(x, **params, groups=self.groups, eps=self.eps), {}

    def offset(self, x):
        size = self.channels // self.groups
        x = x.reshape(*x.shape[:-1], self.groups, size)
        axes = (*range(1, x.ndim - 2), x.ndim - 1)
        return offset_along(x, axes, self.eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstanceNorm(Layer):
    """Normalizes each channel of each example over the spatial axes."""

    name = "instance_norm"
    family = "normalization"

    channels: int = 3
    eps: float = 1e-5
    channelwise_affine: bool = True
    size: tuple[int, ...] = extent((2, 3))

    @property
    def inputs(self):
        return (Shaped((*self.size, self.channels)),)

    def variables(self):
        affine = self.channelwise_affine
        return affine_variables((self.channels,), weight=affine, bias=affine)

    def forward(self, params, buffers, x, *, key, training):
        return instance_norm(x, **params, eps=self.eps), {}

    def offset(self, x):
        return offset_along(x, tuple(range(1, x.ndim - 1)), self.eps)
