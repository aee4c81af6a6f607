"""Dropout."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from common.layers._layer import Layer, Side, extent
from common.protocol import Shaped


def dropout(
    x: Float[Array, "B *S"],
    key: PRNGKeyArray,
    p: float,
    broadcast_dims: tuple[int, ...] = (),
) -> Float[Array, "B *S"]:
    """Zeroes each element with probability `p` and scales the rest.

    One mask is drawn for the whole batch, in the axis order of `x`.

    Args:
        x: a batch.
        key: draws the mask.
        p: the probability.
        broadcast_dims: axes of the batch along which the mask is the same.

    Reference: Srivastava et al., "Dropout", JMLR 15 (2014).
    """
    shape = [1 if i in broadcast_dims else n for i, n in enumerate(x.shape)]
    keep = jr.bernoulli(key, 1 - p, shape)
    return jnp.where(keep, x / (1 - p), jnp.zeros_like(x))


def dropout_per_example(
    x: Float[Array, "B *S"], key: PRNGKeyArray, p: float
) -> Float[Array, "B *S"]:
    """The same, each example's mask from a key of its own.

    Reference: `eqx.nn.Dropout` under `jax.vmap` and split keys.
    """
    keys = jr.split(key, x.shape[0])
    keep = jax.vmap(lambda key: jr.bernoulli(key, 1 - p, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - p), jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Zeroes elements at random; the same ones from the same key.

    A mask is drawn for the batch from its key, as Flax does, or for each
    example from a key split off it, as Equinox does.
    """

    family = "regularisation"
    equinox = Side(("Dropout",), "own", "Dropout", page="dropout")
    flax = Side(("Dropout",), "settings", page="stochastic")
    same = {"p": "rate"}

    p: float = 0.3
    mask: Literal["batch", "example"] = "batch"
    broadcast_dims: tuple[int, ...] = ()  # of the batch, not the batch axis
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
