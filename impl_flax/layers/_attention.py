"""Attention with the sizes and the dropout of Equinox, and rotary embeddings.

The layers act on a batch `(B, S, ...)`. Like the stock layers they accept
`rngs=`, and respect `train()`, `eval()` and `nnx.view`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def dot_product_attention(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K G D"],
    value: Float[Array, "B K G E"],
    bias: Float[Array, "#B #H #Q #K"] | None = None,
    mask: Bool[Array, "#B #H #Q #K"] | None = None,
    *,
    dropout_rng: PRNGKeyArray | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    is_causal: bool = False,
    precision: Any = None,
    module: nnx.Module | None = None,
    **unused: Any,
) -> Float[Array, "B Q H E"]:
    r"""An `attention_fn` for `nnx.MultiHeadAttention` that matches Equinox.

    .. math::
        \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{D}} + b\right) V

    The softmax is computed in float32 or wider, where
    `nnx.dot_product_attention` always uses float32. The dropout key is split
    over the batch and then over the heads, so that every head of every
    example samples its own mask.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax import layers
        >>> attention = nnx.MultiHeadAttention(
        ...     num_heads=2,
        ...     in_features=8,
        ...     attention_fn=layers.dot_product_attention,
        ...     decode=False,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> attention(jnp.ones((3, 5, 8))).shape
        (3, 5, 8)

    Args:
        query: the query heads.
        key: the key heads; G divides H.
        value: the value heads.
        bias: added to the logits.
        mask: true where a query may attend to a key.
        dropout_rng: a PRNG key for dropout.
        dropout_rate: the dropout probability of the attention weights.
        deterministic: whether to disable dropout.
        is_causal: whether to hide later keys from a query.
        precision: the precision of the matrix products.
        module: the module to sow the attention weights in.
        unused: further arguments of the layer that have no effect here:
            `dtype`, `broadcast_dropout`.
    """
    del unused
    group = query.shape[-2] // key.shape[-2]
    key, value = (jnp.repeat(x, group, axis=-2) for x in (key, value))
    query = query / math.sqrt(query.shape[-1])
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision)
    if bias is not None:
        logits = logits + bias
    lowest = jnp.finfo(logits.dtype).min
    if is_causal:
        causal = jnp.tril(jnp.ones(logits.shape[-2:], bool))
        logits = jnp.where(causal, logits, lowest)
    if mask is not None:
        logits = jnp.where(mask, logits, lowest)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    weights = jax.nn.softmax(logits.astype(wide)).astype(logits.dtype)
    if module is not None:
        module.sow(nnx.Intermediate, "attention_weights", weights)
    if dropout_rng is not None and dropout_rate > 0 and not deterministic:
        keep = _dropout_mask(dropout_rng, 1 - dropout_rate, weights.shape)
        weights = weights / (1 - dropout_rate)
        weights = jnp.where(keep, weights, jnp.zeros_like(weights))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision)


def _dropout_mask(
    key: PRNGKeyArray, keep_prob: float, shape: tuple[int, ...]
) -> Array:
    batch, heads, *head_shape = shape
    keys = jax.vmap(lambda key: jr.split(key, heads))(jr.split(key, batch))

    def sample(key):
        return jr.bernoulli(key, keep_prob, head_shape)

    return jax.vmap(jax.vmap(sample))(keys)


class MultiheadAttention(nnx.Module):
    r"""Multi-head attention whose sizes and biases are set separately.

    .. math::
        \mathrm{head}_h = \mathrm{softmax}\left(
            \frac{Q_h K_h^\top}{\sqrt{D}} \right) V_h

    The output is a linear map of the concatenated heads.
    `nnx.MultiHeadAttention` has one size for key and value and one for all
    heads, and either all four projections have a bias or none has.

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import MultiheadAttention
        >>> attention = MultiheadAttention(
        ...     num_heads=2,
        ...     query_size=8,
        ...     key_size=6,
        ...     value_size=5,
        ...     output_size=7,
        ...     qk_size=4,
        ...     vo_size=3,
        ...     use_key_bias=False,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> query, key = jnp.ones((1, 9, 8)), jnp.ones((1, 10, 6))
        >>> attention(query, key, jnp.ones((1, 10, 5))).shape
        (1, 9, 7)

    References:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
        Counterpart: `equinox.nn.MultiheadAttention`.
    """

    def __init__(
        self,
        num_heads: int,
        query_size: int,
        key_size: int,
        value_size: int,
        output_size: int,
        qk_size: int,
        vo_size: int,
        *,
        use_query_bias: bool = True,
        use_key_bias: bool = True,
        use_value_bias: bool = True,
        use_output_bias: bool = True,
        dropout_rate: float = 0.0,
        deterministic: bool = False,
        attention_fn: Callable[..., Array] = dot_product_attention,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates a layer with `num_heads` heads.

        Args:
            num_heads: the number of heads.
            query_size: the number of query features.
            key_size: the number of key features.
            value_size: the number of value features.
            output_size: the number of output features.
            qk_size: the number of query and key features of a head.
            vo_size: the number of value features of a head.
            use_query_bias: whether the query projection has a bias.
            use_key_bias: whether the key projection has a bias.
            use_value_bias: whether the value projection has a bias.
            use_output_bias: whether the output projection has a bias.
            dropout_rate: the dropout probability of the attention weights.
            deterministic: whether to disable dropout.
            attention_fn: a function that computes attention from the heads.
            dtype: the dtype of the computation, by default inferred from the
                input and the parameters.
            param_dtype: the dtype of the parameters.
            rngs: the streams of the initial parameters and of the dropout
                masks.
        """

        def projection(inputs: Any, outputs: Any, use_bias: bool, *axis: int):
            return nnx.LinearGeneral(
                inputs,
                outputs,
                axis=axis or -1,
                use_bias=use_bias,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        qk, vo = (num_heads, qk_size), (num_heads, vo_size)
        self.query = projection(query_size, qk, use_query_bias)
        self.key = projection(key_size, qk, use_key_bias)
        self.value = projection(value_size, vo, use_value_bias)
        self.out = projection(vo, output_size, use_output_bias, -2, -1)
        self.dropout_rate = dropout_rate
        self.deterministic = deterministic
        self.attention_fn = attention_fn
        self.rngs: nnx.RngStream | None
        if dropout_rate > 0:
            self.rngs = rngs.dropout.fork()
        else:
            self.rngs = nnx.data(None)

    def __call__(
        self,
        inputs_q: Float[Array, "B Q I"],
        inputs_k: Float[Array, "B K J"],
        inputs_v: Float[Array, "B K L"],
        *,
        mask: Bool[Array, "#B #H Q K"] | None = None,
        deterministic: bool | None = None,
        rngs: Any = None,
    ) -> Float[Array, "B Q O"]:
        """Applies attention to a batch.

        Args:
            inputs_q: the query sequences.
            inputs_k: the key sequences.
            inputs_v: the value sequences.
            mask: true where a query may attend to a key.
            deterministic: overrides `self.deterministic`.
            rngs: overrides `self.rngs`; an `nnx.Rngs` or a stream.
        """
        if deterministic is None:
            deterministic = self.deterministic
        if rngs is None:
            rngs = self.rngs
        elif isinstance(rngs, nnx.Rngs):
            rngs = rngs.dropout
        use_dropout = self.dropout_rate > 0 and not deterministic
        heads = self.attention_fn(
            self.query(inputs_q),
            self.key(inputs_k),
            self.value(inputs_v),
            mask=mask,
            dropout_rng=rngs() if use_dropout else None,
            dropout_rate=self.dropout_rate,
            deterministic=deterministic,
        )
        return self.out(heads)

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            deterministic: whether to disable dropout.
        """
        if deterministic is not None:
            self.deterministic = deterministic


class RotaryPositionalEmbedding(nnx.Module):
    r"""Rotates pairs of features by angles that grow with the position.

    .. math::
        \begin{pmatrix} y_j \\ y_{j + D/2} \end{pmatrix} =
        \begin{pmatrix} \cos t \omega_j & -\sin t \omega_j \\
        \sin t \omega_j & \cos t \omega_j \end{pmatrix}
        \begin{pmatrix} x_j \\ x_{j + D/2} \end{pmatrix}, \qquad
        \omega_j = \theta^{-2 j / D}

    at position :math:`t`.

    Example:

        >>> import jax.numpy as jnp
        >>> from impl_flax.layers import RotaryPositionalEmbedding
        >>> rotate = RotaryPositionalEmbedding(embedding_size=4)
        >>> rotate(jnp.ones((3, 5, 4))).shape
        (3, 5, 4)
        >>> heads = jnp.ones((3, 5, 2, 4), "float32")
        >>> rotate(heads)[0, 0].tolist()  # position 0 is not rotated
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]

    References:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position
        Embedding", 2021, arXiv:2104.09864. Counterpart:
        `equinox.nn.RotaryPositionalEmbedding`.
    """

    def __init__(self, embedding_size: int, theta: float = 10_000.0):
        """Creates a layer, which has no parameters.

        Args:
            embedding_size: the number of features of a vector or of a head,
                which is even.
            theta: the base of the frequencies.

        Raises:
            ValueError: if `embedding_size` is odd.
        """
        if embedding_size % 2:
            raise ValueError(
                "RotaryPositionalEmbedding embedding_size: got "
                f"{embedding_size}, expected an even number. Choose an even "
                "size, because features are rotated in pairs."
            )
        self.embedding_size = embedding_size
        self.theta = theta

    def __call__(self, x: Float[Array, "B S *H D"]) -> Array:
        """Rotates sequences of vectors or heads that start at position 0.

        Args:
            x: the batch of sequences.

        Raises:
            ValueError: if `x` does not have `embedding_size` features.
        """
        if x.shape[-1] != self.embedding_size:
            raise ValueError(
                f"RotaryPositionalEmbedding x: got {x.shape[-1]} features, "
                f"expected embedding_size={self.embedding_size}. Create the "
                "layer with the number of features of `x`."
            )
        length, half = x.shape[1], self.embedding_size // 2
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        frequencies = self.theta ** (-jnp.arange(half, dtype=dtype) / half)
        positions = jnp.arange(length, dtype=dtype)
        angles = jnp.outer(positions, frequencies)
        angles = angles.reshape(length, *[1] * (x.ndim - 3), half)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        a, b = jnp.split(x, 2, axis=-1)
        rotated = (a * cos - b * sin, b * cos + a * sin)
        return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
