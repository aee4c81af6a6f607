"""Dropout with a separate mask key for each example.

The layer acts on a batch, and respects `train()`, `eval()` and `nnx.view`
like the stock layers.
"""

import jax
import jax.random as jr
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray


class Dropout(nnx.Dropout):
    r"""Dropout that samples the mask of each example from its own key.

    .. math::
        y_i = \frac{m_i \odot x_i}{1 - p}, \qquad
        m_{ij} \sim \mathrm{Bernoulli}(1 - p)

    The key of the call is split over the batch, and the mask :math:`m_i` of
    the :math:`i`-th example is sampled from the :math:`i`-th key. This is
    what `eqx.nn.Dropout` does under `jax.vmap`. `nnx.Dropout` samples one
    mask for the whole batch from the key of the call. The constructor is that
    of `nnx.Dropout`, whose `broadcast_dims` here are axes of an example.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import Dropout
        >>> dropout = Dropout(0.5, rngs=nnx.Rngs(0))
        >>> y = dropout(jnp.ones((4, 6), "float32"))
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]

    References:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks
        from Overfitting", JMLR 15, 2014. Counterpart: `equinox.nn.Dropout`.
    """

    def __call__(
        self,
        inputs: Float[Array, "B *S"],
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | PRNGKeyArray | None = None,
    ) -> Float[Array, "B *S"]:
        """Applies dropout to a batch.

        Args:
            inputs: the batch.
            deterministic: overrides `self.deterministic`.
            rngs: overrides `self.rngs`; a key is split over the batch.

        Raises:
            ValueError: if a key is required, and neither the call nor the
                layer has `rngs`.
        """
        if deterministic is None:
            deterministic = self.deterministic
        if deterministic or self.rate == 0:
            return inputs
        if rngs is None:
            rngs = self.rngs
        if rngs is None:
            raise ValueError(
                "Dropout rngs: got None, expected nnx.Rngs, a stream or a "
                "key when `deterministic` is False. Pass `rngs=` to the call "
                "or to the constructor, or call `model.eval()`."
            )
        if isinstance(rngs, nnx.Rngs):
            rngs = rngs[self.rng_collection]
        key = rngs() if isinstance(rngs, nnx.RngStream) else rngs

        def drop(x, key):
            return super(Dropout, self).__call__(
                x, deterministic=False, rngs=key
            )

        return jax.vmap(drop)(inputs, jr.split(key, len(inputs)))
