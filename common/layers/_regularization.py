"""Dropout."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from common.layers._layer import Layer, extent
from common.protocol import Shaped


def dropout(
    x: Float[Array, "B *S"],
    key: PRNGKeyArray,
    p: float,
    broadcast_dims: tuple[int, ...] = (),
) -> Float[Array, "B *S"]:
    """Zeroes each element with probability `p`, and divides the rest by 1 - p.

    Samples one mask for the whole batch, in the axis order of `x`.

    Args:
        x: a batch.
        key: samples the mask.
        p: the probability that an element is zeroed.
        broadcast_dims: axes of the batch along which the mask is constant.

    References:
        Srivastava et al., "Dropout", JMLR 15 (2014).
    """
    shape = [1 if i in broadcast_dims else n for i, n in enumerate(x.shape)]
    keep = jr.bernoulli(key, 1 - p, shape)
    return _select(keep, x, p)


def dropout_per_example(
    x: Float[Array, "B *S"], key: PRNGKeyArray, p: float
) -> Float[Array, "B *S"]:
    """Applies dropout with one key per example, split from `key`.

    References:
        `eqx.nn.Dropout` under `jax.vmap` and split keys.
    """
    keys = jr.split(key, x.shape[0])
    keep = jax.vmap(lambda key: jr.bernoulli(key, 1 - p, x.shape[1:]))(keys)
    return _select(keep, x, p)


def _select(
    keep: Bool[Array, "*#S"], x: Float[Array, "*S"], p: float
) -> Float[Array, "*S"]:
    """Divides the elements to keep by 1 - p, and zeroes the others."""
    # If all are zeroed, a division by 0 would make their gradient NaN.
    kept = 1 - p if p < 1 else 1
    return jnp.where(keep, x / kept, jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Zeroes random elements in training, and scales the others.

    The mask is sampled once per batch from the key of the call, or once per
    example from keys that are split from it.
    """

    name = "dropout"
    family = "regularization"

    p: float = 0.3
    mask: Literal["batch", "example"] = "batch"
    broadcast_dims: tuple[int, ...] = ()  # axes of the batch, except 0
    size: tuple[int, ...] = extent((3, 4))

    @property
    def random(self):
        return True

    @property
    def inputs(self):
        return (Shaped(self.size),)

    def forward(self, params, buffers, x, *, key, training):
        if not training:
            return x, {}
        if self.mask == "example":
            return dropout_per_example(x, key, self.p), {}
        return dropout(x, key, self.p, self.broadcast_dims), {}
