"""Dropout with one mask for the whole batch.

The layer acts on one example inside `jax.vmap(..., axis_name=...)`. Like the
stock layers it accepts `key=` and `inference=`, and respects
`eqx.nn.inference_mode`.
"""

from collections.abc import Hashable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


class Dropout(eqx.Module):
    r"""Dropout that samples one mask for the whole batch.

    .. math::
        y_i = \frac{m_i \odot x_i}{1 - p}, \qquad
        m_{ij} \sim \mathrm{Bernoulli}(1 - p)

    The mask :math:`m` is sampled once for the batch, and the :math:`i`-th
    example uses its :math:`i`-th row. `eqx.nn.Dropout` under `jax.vmap` needs
    a separate key for each example instead. From the same key, this layer
    samples bit for bit the same mask as `nnx.Dropout`.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import Dropout
        >>> dropout = Dropout(p=0.5, axis_name="batch")
        >>> xs, key = jnp.ones((4, 6), "float32"), jax.random.key(0)
        >>> ys = jax.vmap(
        ...     lambda x: dropout(x, key=key), axis_name="batch"
        ... )(xs)
        >>> sorted(set(ys.ravel().tolist()))
        [0.0, 2.0]

    References:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks
        from Overfitting", JMLR 15, 2014.
    """

    # As in `eqx.nn.Dropout`, these are not static, so that `eqx.tree_at` can
    # change them.
    p: float
    inference: bool
    axis_name: Hashable
    broadcast_axes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        p: float = 0.5,
        inference: bool = False,
        *,
        axis_name: Hashable,
        broadcast_axes: tuple[int, ...] = (),
    ):
        """Creates the layer.

        Args:
            p: the probability of setting an element to zero.
            inference: whether to return the input unchanged.
            axis_name: the name of the vmapped batch axis.
            broadcast_axes: the axes of an example along which the mask is
                broadcast.
        """
        self.p = p
        self.inference = inference
        self.axis_name = axis_name
        self.broadcast_axes = broadcast_axes

    def __call__(
        self,
        x: Float[Array, "*S"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*S"]:
        """Applies dropout to one example.

        Args:
            x: the example.
            key: one key for the whole batch; do not split it over the
                examples.
            inference: overrides `self.inference`.

        Raises:
            RuntimeError: if a key is required and not given.
        """
        if inference is None:
            inference = self.inference
        is_number = isinstance(self.p, int | float)
        if inference or (is_number and self.p == 0):
            return x
        if key is None:
            raise RuntimeError(
                "Dropout key: got None, expected a PRNG key when not in "
                "inference mode. Pass `key=`, or use "
                "`eqx.nn.inference_mode(model)`."
            )
        # A number is subtracted in Python's double precision, as in Flax.
        q = 1 - (self.p if is_number else lax.stop_gradient(self.p))
        batch_size = lax.axis_size(self.axis_name)
        if batch_size == 0:
            return x
        broadcast = {axis % x.ndim for axis in self.broadcast_axes}
        shape = [1 if i in broadcast else n for i, n in enumerate(x.shape)]
        mask = jr.bernoulli(key, q, (batch_size, *shape))
        mask = mask[lax.axis_index(self.axis_name)]
        # If all are dropped, a division by 0 would make their gradient NaN.
        divisor = q or 1 if is_number else jnp.where(q == 0, 1, q)
        return jnp.where(mask, x / divisor, jnp.zeros_like(x))
