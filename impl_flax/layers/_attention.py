"""Attention with Equinox's dropout and sizes, and rotary positions.

They act on a batch `(B, S, ...)`, take `rngs=`, and answer to `train()`,
`eval()` and `nnx.view` like any stock layer.
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
    """An `attention_fn` for `nnx.MultiHeadAttention`, with Equinox's meaning.

    The softmax is computed in float32 at least, and in float64 where the
    inputs are; `nnx.dot_product_attention` knows float32 alone. The dropout
    key is split over the batch, and then over the heads, so that every head
    of every example has a mask of its own.

    Args:
        query: the heads of the query.
        key: the heads of the key; G divides H.
        value: the heads of the value.
        bias: added to the logits.
        mask: true where a query may attend to a key.
        dropout_rng: for dropout.
        dropout_rate: probability of dropping an attention weight.
        deterministic: whether to drop none.
        is_causal: whether a query attends to no later key.
        precision: of the matrix products.
        module: where to sow the attention weights.
        unused: what else the layer passes: `dtype`, `broadcast_dropout`.
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
        keep = _keep(dropout_rng, 1 - dropout_rate, weights.shape)
        weights = weights / (1 - dropout_rate)
        weights = jnp.where(keep, weights, jnp.zeros_like(weights))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision)


def _keep(key: PRNGKeyArray, p: float, shape: tuple[int, ...]) -> Array:
    batch, heads, *shape_of_one = shape
    keys = jax.vmap(lambda key: jr.split(key, heads))(jr.split(key, batch))
    draw = jax.vmap(jax.vmap(lambda key: jr.bernoulli(key, p, shape_of_one)))
    return draw(keys)


class MultiheadAttention(nnx.Module):
    """Attention of several heads, with each size and bias of its own.

    `nnx.MultiHeadAttention` has one size for key and value, one for all
    heads, and a bias everywhere or nowhere.

    Reference: `equinox.nn.MultiheadAttention`; Vaswani et al., "Attention Is
        All You Need", 2017, arXiv:1706.03762.
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
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes a layer of `num_heads` heads.

        Args:
            num_heads: number of heads.
            query_size: features of the query.
            key_size: features of the key.
            value_size: features of the value.
            output_size: features of the output.
            qk_size: features of a head's query and key.
            vo_size: features of a head's value.
            use_query_bias: whether the query's projection has a bias.
            use_key_bias: whether the key's has one.
            use_value_bias: whether the value's has one.
            use_output_bias: whether the output's has one.
            dropout_rate: probability of dropping an attention weight.
            deterministic: whether to drop none.
            attention_fn: computes attention from heads.
            param_dtype: of the parameters.
            rngs: draws the parameters, and the masks of dropout.
        """

        def projection(inputs: Any, outputs: Any, use_bias: bool, *axis: int):
            return nnx.LinearGeneral(
                inputs,
                outputs,
                axis=axis or -1,
                use_bias=use_bias,
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
        self.rngs = rngs.dropout.fork() if dropout_rate > 0 else None

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
        """Lets a batch attend.

        Args:
            inputs_q: what asks.
            inputs_k: what it is compared with.
            inputs_v: what it gets.
            mask: true where a query may attend to a key.
            deterministic: overrides that of the layer.
            rngs: overrides those of the layer: `nnx.Rngs` or a stream.
        """
        if deterministic is None:
            deterministic = self.deterministic
        if rngs is None:
            rngs = self.rngs
        elif isinstance(rngs, nnx.Rngs):
            rngs = rngs.dropout
        drop = self.dropout_rate > 0 and not deterministic
        seen = self.attention_fn(
            self.query(inputs_q),
            self.key(inputs_k),
            self.value(inputs_v),
            mask=mask,
            dropout_rng=rngs() if drop else None,
            dropout_rate=self.dropout_rate,
            deterministic=deterministic,
        )
        return self.out(seen)

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            deterministic: whether to drop no attention weight.
        """
        if deterministic is not None:
            self.deterministic = deterministic


class RotaryPositionalEmbedding(nnx.Module):
    """Rotates pairs of features by angles that grow with the position.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864.
    """

    def __init__(self, embedding_size: int, theta: float = 10_000.0):
        """Makes a rotation, which has no parameters.

        Args:
            embedding_size: features of the input, or of one of its heads.
            theta: the base of the wave lengths.

        Raises:
            ValueError: if the features do not make pairs.
        """
        if embedding_size % 2:
            raise ValueError(
                "RotaryPositionalEmbedding embedding_size: got "
                f"{embedding_size}, expected an even number. Features are "
                "rotated in pairs."
            )
        self.embedding_size = embedding_size
        self.theta = theta

    def __call__(self, x: Float[Array, "B S *H D"]) -> Array:
        """Rotates sequences of vectors or of heads, from position 0 on."""
        if x.shape[-1] != self.embedding_size:
            raise ValueError(
                f"RotaryPositionalEmbedding x: got {x.shape[-1]} features, "
                f"expected embedding_size={self.embedding_size}. Change one."
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
