"""Grouped-query attention and rotary position embeddings.

The layers act on one example. Like the stock layers they accept `key=` and
`inference=`, and respect `eqx.nn.inference_mode`.
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
    r"""Attention in which groups of query heads share a key and value head.

    .. math::
        \mathrm{head}_h = \mathrm{softmax}\left(
            \frac{Q_h K_g^\top}{\sqrt{D}} \right) V_g, \qquad
        g = \lfloor h G / H \rfloor

    for :math:`H` query heads of size :math:`D` and :math:`G` key and value
    heads. The output is a linear map of the concatenated heads. The
    parameters have the names and shapes of `eqx.nn.MultiheadAttention`,
    except that the key and value projections have :math:`G` heads.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import GroupedQueryAttention
        >>> attention = GroupedQueryAttention(
        ...     num_heads=4, num_kv_heads=2, query_size=8,
        ...     key=jax.random.key(0),
        ... )
        >>> x = jnp.ones((5, 8))
        >>> attention(x, x, x, mask=jnp.tril(jnp.ones((5, 5), bool))).shape
        (5, 8)

    References:
        Ainslie et al., "GQA: Training Generalized Multi-Query Transformer
        Models from Multi-Head Checkpoints", 2023, arXiv:2305.13245. Dehghani
        et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023,
        arXiv:2302.05442, for `normalize_qk`.
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
        """Creates a layer with `num_heads` query heads.

        Args:
            num_heads: the number of query heads.
            num_kv_heads: the number of key and value heads, a divisor of
                `num_heads`.
            query_size: the number of query features.
            kv_size: the number of key and value features, by default
                `query_size`.
            output_size: the number of output features, by default
                `query_size`.
            head_size: the number of features of a head, by default
                `query_size // num_heads`.
            use_bias: whether the four projections have a bias.
            normalize_qk: whether to apply a LayerNorm to the query heads and
                to the key heads.
            dropout_p: the dropout probability of the attention weights.
            inference: whether to disable dropout.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial parameters.

        Raises:
            ValueError: if `num_kv_heads` does not divide `num_heads`, or if
                `num_heads` does not divide `query_size` and `head_size` is
                not given.
        """
        if num_heads % num_kv_heads:
            raise ValueError(
                f"GroupedQueryAttention num_kv_heads: got {num_kv_heads}, "
                f"expected a divisor of num_heads={num_heads}. Each key and "
                "value head serves the same number of query heads."
            )
        if head_size is None and query_size % num_heads:
            raise ValueError(
                f"GroupedQueryAttention query_size: got {query_size}, "
                f"expected a multiple of num_heads={num_heads}. Pass "
                "`head_size` to choose the size of a head."
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
        """Applies attention to one example.

        Args:
            query: the query sequence.
            key_: the key sequence.
            value: the value sequence.
            mask: true where a query may attend to a key.
            key: a PRNG key for dropout, which is split over the heads.
            inference: overrides `self.dropout.inference`.
            process_heads: a function of the query, key and value heads, of
                shapes `(Q, H, D)`, `(K, G, D)` and `(K, G, D)`, that returns
                the heads to use instead, for example rotated ones.
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
        heads = jnp.einsum("hqk,khd->qhd", weights, v)
        return jax.vmap(self.output_proj)(heads.reshape(len(query), -1))


def _heads(projection: eqx.nn.Linear, x: Array, heads: int) -> Array:
    return jax.vmap(projection)(x).reshape(len(x), heads, -1)


class RotaryPositionalEmbedding(eqx.Module):
    r"""Rotates pairs of features by angles that grow with the position.

    .. math::
        \begin{pmatrix} y_j \\ y_{j + D/2} \end{pmatrix} =
        \begin{pmatrix} \cos t \omega_j & -\sin t \omega_j \\
        \sin t \omega_j & \cos t \omega_j \end{pmatrix}
        \begin{pmatrix} x_j \\ x_{j + D/2} \end{pmatrix}, \qquad
        \omega_j = \theta^{-2 j / D}

    at position :math:`t`. `eqx.nn.RotaryPositionalEmbedding` caches its
    frequencies by size and dtype, so that all layers of one size share the
    `theta` of the first. This layer has no cache, and also accepts heads, so
    that `process_heads` does not need `jax.vmap`.

    Example:

        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import RotaryPositionalEmbedding
        >>> rotate = RotaryPositionalEmbedding(embedding_size=4)
        >>> rotate(jnp.ones((5, 4))).shape
        (5, 4)
        >>> heads = jnp.ones((5, 2, 4), "float32")
        >>> rotate(heads)[0].tolist()  # position 0 is not rotated
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]

    Attributes:
        embedding_size: the number of features, which is even.
        theta: the base of the frequencies.

    References:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position
        Embedding", 2021, arXiv:2104.09864.
    """

    embedding_size: int = eqx.field(static=True)
    theta: float = eqx.field(static=True, default=10_000.0)

    def __check_init__(self):
        if self.embedding_size % 2:
            raise ValueError(
                "RotaryPositionalEmbedding embedding_size: got "
                f"{self.embedding_size}, expected an even number. Choose an "
                "even size, because features are rotated in pairs."
            )

    def __call__(
        self, x: Float[Array, "S *H D"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "S *H D"]:
        """Rotates a sequence of vectors or heads that starts at position 0.

        Args:
            x: the sequence.
            key: ignored; provided for compatibility with other layers.

        Raises:
            ValueError: if `x` does not have `embedding_size` features.
        """
        del key
        if x.shape[-1] != self.embedding_size:
            raise ValueError(
                f"RotaryPositionalEmbedding x: got {x.shape[-1]} features, "
                f"expected embedding_size={self.embedding_size}. Create the "
                "layer with the number of features of `x`."
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
