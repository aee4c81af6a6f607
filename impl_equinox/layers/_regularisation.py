"""A Dropout that draws one mask for the whole batch.

It acts on one example under `jax.vmap(..., axis_name=...)`, takes `key=` and
`inference=`, and answers to `eqx.nn.inference_mode` like any stock layer.
"""

from collections.abc import Hashable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


class Dropout(eqx.Module):
    """Draws one mask for the whole batch; each example takes its row.

    `eqx.nn.Dropout` draws a mask for each example from a key of its own. One
    draw over the batch is what `nnx.Dropout` does, and from the same key it
    is bit for bit the same mask.

    Reference: Srivastava et al., "Dropout", JMLR 15 (2014).
    """

    inference: bool
    p: float = eqx.field(static=True)
    axis_name: Hashable = eqx.field(static=True)
    broadcast_axes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        p: float = 0.5,
        *,
        axis_name: Hashable,
        broadcast_axes: tuple[int, ...] = (),
        inference: bool = False,
    ):
        """Makes a layer that zeroes each element with probability `p`.

        Args:
            p: the probability.
            axis_name: the vmapped axis that makes the batch.
            broadcast_axes: axes of an example along which the mask is the
                same.
            inference: whether to return the input as it is.
        """
        self.p = p
        self.axis_name = axis_name
        self.broadcast_axes = broadcast_axes
        self.inference = inference

    def __call__(
        self,
        x: Float[Array, "*S"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*S"]:
        """Drops elements of one example.

        Args:
            x: the example.
            key: one key for the whole batch (do not split it over the vmap).
            inference: overrides `self.inference`.

        Raises:
            RuntimeError: if a key is needed and not given.
        """
        if inference is None:
            inference = self.inference
        if inference or self.p == 0:
            return x
        if key is None:
            raise RuntimeError(
                "Dropout key: got None, expected a PRNG key when not in "
                "inference mode. Pass `key=`, or use "
                "`eqx.nn.inference_mode(model)`."
            )
        batch = lax.axis_size(self.axis_name)
        shared = {axis % x.ndim for axis in self.broadcast_axes}
        shape = [1 if i in shared else n for i, n in enumerate(x.shape)]
        keep = jr.bernoulli(key, 1 - self.p, (batch, *shape))
        keep = keep[lax.axis_index(self.axis_name)]
        return jnp.where(keep, x / (1 - self.p), jnp.zeros_like(x))
