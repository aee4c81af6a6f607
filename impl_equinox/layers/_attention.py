"""Attention with grouped queries, and rotary positions.

They act on one example, take `key=` and `inference=`, and answer to
`eqx.nn.inference_mode` like any stock layer.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

ProcessHeads = Callable[[Array, Array, Array], tuple[Array, Array, Array]]


class GroupedQueryAttention(eqx.Module):
    """Attention in which several heads of the query share key and value.

    Otherwise it is `eqx.nn.MultiheadAttention`, with the same parameters
    under the same names.

    Reference: Ainslie et al., "GQA", 2023, arXiv:2305.13245; Dehghani et al.,
        "Scaling Vision Transformers to 22 Billion Parameters", 2023,
        arXiv:2302.05442, on `normalize_qk`.
    """

    query_proj: eqx.nn.Linear
    key_proj: eqx.nn.Linear
    value_proj: eqx.nn.Linear
    output_proj: eqx.nn.Linear
    query_norm: eqx.nn.LayerNorm | None
    key_norm: eqx.nn.LayerNorm | None
    dropout: eqx.nn.Dropout
    num_heads: int = eqx.field(static=True)
    num_kv_heads: int = eqx.field(static=True)

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        query_size: int,
        kv_size: int | None = None,
        output_size: int | None = None,
        head_size: int | None = None,
        *,
        use_bias: bool = False,
        normalize_qk: bool = False,
        dropout_p: float = 0.0,
        inference: bool = False,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """Makes a layer of `num_heads` heads.

        Args:
            num_heads: heads of the query.
            num_kv_heads: heads of key and value; divides `num_heads`.
            query_size: features of the query.
            kv_size: features of key and value; those of the query if `None`.
            output_size: features of the output; those of the query if `None`.
            head_size: features of a head; `query_size // num_heads` if `None`.
            use_bias: whether each of the four projections has a bias.
            normalize_qk: whether to apply a LayerNorm to the heads of query
                and key.
            dropout_p: probability of dropping an attention weight.
            inference: whether to drop none.
            dtype: of the parameters; JAX's default if `None`.
            key: draws the parameters.

        Raises:
            ValueError: if the heads do not divide.
        """
        if num_heads % num_kv_heads:
            raise ValueError(
                f"GroupedQueryAttention num_kv_heads: got {num_kv_heads}, "
                f"expected a divisor of num_heads={num_heads}. Change one."
            )
        if head_size is None and query_size % num_heads:
            raise ValueError(
                f"GroupedQueryAttention query_size: got {query_size}, "
                f"expected a multiple of num_heads={num_heads}. Pass "
                "`head_size`."
            )
        kv_size = query_size if kv_size is None else kv_size
        output_size = query_size if output_size is None else output_size
        head_size = query_size // num_heads if head_size is None else head_size
        keys = iter(jr.split(key, 4))

        def linear(inputs: int, outputs: int) -> eqx.nn.Linear:
            return eqx.nn.Linear(
                inputs, outputs, use_bias=use_bias, dtype=dtype, key=next(keys)
            )

        def norm() -> eqx.nn.LayerNorm | None:
            if not normalize_qk:
                return None
            return eqx.nn.LayerNorm(
                head_size, eps=1e-6, use_bias=False, dtype=dtype
            )

        self.query_proj = linear(query_size, num_heads * head_size)
        self.key_proj = linear(kv_size, num_kv_heads * head_size)
        self.value_proj = linear(kv_size, num_kv_heads * head_size)
        self.output_proj = linear(num_heads * head_size, output_size)
        self.query_norm = norm()
        self.key_norm = norm()
        self.dropout = eqx.nn.Dropout(dropout_p, inference=inference)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads

    def __call__(
        self,
        query: Float[Array, "Q I"],
        key_: Float[Array, "K J"],
        value: Float[Array, "K J"],
        mask: Bool[Array, "Q K"] | Bool[Array, "H Q K"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
        process_heads: ProcessHeads | None = None,
    ) -> Float[Array, "Q O"]:
        """Lets one example attend.

        Args:
            query: what asks.
            key_: what it is compared with.
            value: what it gets.
            mask: true where a query may attend to a key.
            key: for dropout; each head takes a key split from it.
            inference: overrides that of the layer.
            process_heads: changes the heads `(Q, H, D)`, `(K, G, D)` and
                `(K, G, D)` of query, key and value, to rotate them for one.
        """
        q = _heads(self.query_proj, query, self.num_heads)
        k = _heads(self.key_proj, key_, self.num_kv_heads)
        v = _heads(self.value_proj, value, self.num_kv_heads)
        if self.query_norm is not None and self.key_norm is not None:
            q = jax.vmap(jax.vmap(self.query_norm))(q)
            k = jax.vmap(jax.vmap(self.key_norm))(k)
        if process_heads is not None:
            q, k, v = process_heads(q, k, v)
        group = self.num_heads // self.num_kv_heads
        k, v = jnp.repeat(k, group, axis=1), jnp.repeat(v, group, axis=1)

        q = q / math.sqrt(q.shape[-1])
        logits = jnp.einsum("qhd,khd->hqk", q, k)
        if mask is not None:
            logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
        wide = jnp.promote_types(logits.dtype, jnp.float32)
        weights = jax.nn.softmax(logits.astype(wide)).astype(logits.dtype)
        keys = None if key is None else jr.split(key, self.num_heads)
        weights = jax.vmap(
            lambda w, key: self.dropout(w, key=key, inference=inference)
        )(weights, keys)
        seen = jnp.einsum("hqk,khd->qhd", weights, v)
        return jax.vmap(self.output_proj)(seen.reshape(len(query), -1))


def _heads(projection: eqx.nn.Linear, x: Array, heads: int) -> Array:
    return jax.vmap(projection)(x).reshape(len(x), heads, -1)


class RotaryPositionalEmbedding(eqx.Module):
    """Rotates pairs of features by angles that grow with the position.

    It has no cache: that of `eqx.nn.RotaryPositionalEmbedding` is shared by
    all layers of one size, whatever their `theta`. And it takes heads too, so
    that `process_heads` needs no `vmap`.

    Reference: Su et al., "RoFormer", 2021, arXiv:2104.09864.
    """

    embedding_size: int = eqx.field(static=True)
    theta: float = eqx.field(static=True, default=10_000.0)

    def __check_init__(self):
        if self.embedding_size % 2:
            raise ValueError(
                "RotaryPositionalEmbedding embedding_size: got "
                f"{self.embedding_size}, expected an even number. Features "
                "are rotated in pairs."
            )

    def __call__(
        self, x: Float[Array, "S *H D"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "S *H D"]:
        """Rotates a sequence of vectors or of heads, from position 0 on."""
        del key
        if x.shape[-1] != self.embedding_size:
            raise ValueError(
                f"RotaryPositionalEmbedding x: got {x.shape[-1]} features, "
                f"expected embedding_size={self.embedding_size}. Change one."
            )
        half = self.embedding_size // 2
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        frequencies = self.theta ** (-jnp.arange(half, dtype=dtype) / half)
        positions = jnp.arange(len(x), dtype=dtype)
        angles = jnp.outer(positions, frequencies)
        angles = angles.reshape(len(x), *[1] * (x.ndim - 2), half)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        a, b = jnp.split(x, 2, axis=-1)
        rotated = (a * cos - b * sin, b * cos + a * sin)
        return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
