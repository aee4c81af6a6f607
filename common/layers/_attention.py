"""Multi-head attention and its variants."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from common.layers._activation import softmax, standardize
from common.layers._initial import ones
from common.layers._layer import Layer, extent, named, within
from common.layers._linear import linear, linear_variables
from common.layers._regularization import dropout_per_example
from common.layers._rotary import rotary_embedding
from common.protocol import Arrays, Shaped, Variable

AttentionMask = Literal["none", "shared", "heads", "causal", "blank"]
ATTENTION_MASKS: tuple[str, ...] = get_args(AttentionMask)


def attention_weights(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B K H D"],
    mask: Bool[Array, "B Q K"] | Bool[Array, "B H Q K"] | None = None,
) -> Float[Array, "B H Q K"]:
    """Computes `softmax(query @ key.T / sqrt(D))` for each head.

    Where the mask is false, the logit is the lowest finite number. A query
    whose mask is false everywhere attends to all keys equally.

    References:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key)
    logits = logits / math.sqrt(query.shape[-1])
    if mask is not None:
        if mask.ndim == 3:
            mask = mask[:, None]
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    return softmax(logits)


def attention_dropout(
    weights: Float[Array, "B H Q K"], key: PRNGKeyArray, p: float
) -> Float[Array, "B H Q K"]:
    """Zeroes each weight with probability `p` and scales the rest.

    The key is split over the batch, and the result over the heads.

    References:
        `eqx.nn.MultiheadAttention` under a `jax.vmap` over keys.
    """
    keys = jr.split(key, len(weights))
    return jax.vmap(dropout_per_example, (0, 0, None))(weights, keys, p)


def attention_variables(
    num_heads: int,
    query_size: int,
    key_size: int,
    value_size: int,
    output_size: int,
    qk_size: int,
    vo_size: int,
    *,
    num_kv_heads: int | None = None,
    biases: Sequence[bool] = (False, False, False, False),
) -> dict[str, Variable]:
    """Returns the variables of the four projections.

    The features of a projection are grouped by head. `qk_size` and `vo_size`
    are the sizes of one head.

    References:
        The parameters of `eqx.nn.MultiheadAttention`.
    """
    if num_kv_heads is None:
        num_kv_heads = num_heads
    sizes = {
        "query_proj": (query_size, num_heads * qk_size),
        "key_proj": (key_size, num_kv_heads * qk_size),
        "value_proj": (value_size, num_kv_heads * vo_size),
        "output_proj": (num_heads * vo_size, output_size),
    }
    variables = {}
    for (name, (i, o)), bias in zip(sizes.items(), biases, strict=True):
        variables |= named(name, linear_variables(i, o, bias=bias))
    return variables


def multihead_attention(
    query: Float[Array, "B Q I"],
    key_: Float[Array, "B K J"],
    value: Float[Array, "B K L"],
    mask: Bool[Array, "B Q K"] | Bool[Array, "B H Q K"] | None = None,
    *,
    params: Arrays,
    num_heads: int,
    num_kv_heads: int | None = None,
    eps: float = 1e-6,
    theta: float | None = None,
    key: PRNGKeyArray | None = None,
    dropout_p: float = 0.0,
    drop: Callable[[Array, PRNGKeyArray, float], Array] = attention_dropout,
) -> Float[Array, "B Q O"]:
    """Computes multi-head attention between projections of its inputs.

    Each head computes `softmax(q @ k.T / sqrt(D)) @ v`; the results of all
    heads are concatenated and projected.

    Args:
        query: a batch of sequences.
        key_: a batch of sequences that the queries are compared with.
        value: a batch of sequences that are averaged.
        mask: true where a query may attend to a key.
        params: the arrays of `attention_variables`. If they include
            `query_norm.weight` and `key_norm.weight`, both (D,), each head of
            the query and key is normalized.
        num_heads: the number of query heads.
        num_kv_heads: the number of key and value heads. Each is shared by
            `num_heads / num_kv_heads` consecutive query heads. `num_heads`
            if `None`.
        eps: added to the variance in the normalization, which precedes the
            rotary embedding.
        theta: the base of the rotary embedding of query and key. They are not
            rotated if `None`.
        key: samples the dropout of attention weights. There is no dropout if
            `None`.
        dropout_p: the probability that a weight is zeroed.
        drop: zeroes weights, given the weights, the key and the probability.

    References:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762;
        Ainslie et al., "GQA", 2023, arXiv:2305.13245; Dehghani et al.,
        "Scaling Vision Transformers to 22 Billion Parameters", 2023,
        arXiv:2302.05442, on the norms.
    """
    if num_kv_heads is None:
        num_kv_heads = num_heads

    def project(name, x, heads):
        y = linear(x, **within(f"{name}_proj", params))
        return y.reshape(*x.shape[:2], heads, y.shape[-1] // heads)

    def normalize(name, x):
        weight = params.get(f"{name}_norm.weight")
        return x if weight is None else standardize(x, eps) * weight

    q = normalize("query", project("query", query, num_heads))
    k = normalize("key", project("key", key_, num_kv_heads))
    v = project("value", value, num_kv_heads)
    if theta is not None:
        q, k = rotary_embedding(q, theta), rotary_embedding(k, theta)
    k, v = (jnp.repeat(x, num_heads // num_kv_heads, axis=2) for x in (k, v))
    weights = attention_weights(q, k, mask)
    if key is not None and dropout_p > 0:
        weights = drop(weights, key, dropout_p)
    attended = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    attended = lax.collapse(attended, 2)  # (B, Q, H, D) -> (B, Q, H * D)
    return linear(attended, **within("output_proj", params))


# --- rows --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Attention(Layer):
    """The base of the rows below: heads, inputs and the mask."""

    family = "attention"

    num_heads: int = 2
    dropout_p: float = 0.0
    q_len: int = extent(3)
    kv_len: int = extent(4)
    mask: AttentionMask = extent("none")

    @property
    def random(self):
        return self.dropout_p > 0

    @property
    def zero_gradient(self):
        # It adds one constant to all logits of a query.
        return frozenset({"key_proj.bias"})

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Sizes of query, key, value, output, and of a head's qk and vo."""

    @property
    def biases(self) -> Sequence[bool]:
        """Whether each of the four projections has a bias."""
        return [False] * 4

    @property
    def variant(self) -> dict[str, Any]:
        """Further options of `multihead_attention`."""
        return {}

    @property
    def inputs(self):
        query, key, value, *_ = self.sizes
        inputs = (
            Shaped((self.q_len, query)),
            Shaped((self.kv_len, key)),
            Shaped((self.kv_len, value)),
        )
        if self.mask == "none":
            return inputs
        heads = (self.num_heads,) if self.mask == "heads" else ()
        return *inputs, Shaped((*heads, self.q_len, self.kv_len), "bool")

    def variables(self):
        return attention_variables(
            self.num_heads,
            *self.sizes,
            num_kv_heads=self.variant.get("num_kv_heads"),
            biases=self.biases,
        )

    def forward(self, params, buffers, *inputs, key, training):
        y = multihead_attention(
            *inputs,
            params=params,
            num_heads=self.num_heads,
            key=key if training else None,
            dropout_p=self.dropout_p,
            **self.variant,
        )
        return y, {}

    def draw(self, rng, batch_size):
        query, key, *rest = super().draw(rng, batch_size)
        # This keeps the logits near 1. If one key had all the weight, the
        # gradients would be small differences of large numbers.
        query, key = query / 2, key / 2
        if self.mask == "none":
            return query, key, *rest
        value, mask = rest
        if self.mask == "causal":
            keep = np.broadcast_to(np.tri(*mask.shape[-2:]) > 0, mask.shape)
            return query, key, value, np.array(keep)
        # Each query has at least two keys, since the weight of a single key
        # is 1 whatever its logit, so the gradient would vanish.
        keep = rng.random(mask.shape) < 0.5
        keep[..., :2] = True
        keep = rng.permuted(keep, axis=-1)
        if self.mask == "blank":
            keep[:, 0] = False
        return query, key, value, keep


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiheadAttention(_Attention):
    """Computes multi-head attention.

    Keys and values have the same size, and so do all heads. The mask is an
    input, `(Q, K)` or one per head, `(H, Q, K)`. Decoding token by token with
    a cache, which only Flax implements, is the same as a causal mask.
    """

    name = "multihead_attention"

    query_size: int = 4
    kv_size: int = 3
    output_size: int = 5
    head_size: int = 3
    use_bias: bool = False

    @property
    def sizes(self):
        kv, head = self.kv_size, self.head_size
        return self.query_size, kv, kv, self.output_size, head, head

    @property
    def biases(self):
        return [self.use_bias] * 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnequalAttention(_Attention):
    """Computes attention whose projections have different sizes and biases."""

    name = "unequal_attention"

    query_size: int = 4
    key_size: int = 3
    value_size: int = 2
    output_size: int = 5
    qk_size: int = 3
    vo_size: int = 4
    use_query_bias: bool = True
    use_key_bias: bool = False
    use_value_bias: bool = True
    use_output_bias: bool = False

    @property
    def sizes(self):
        return (
            self.query_size,
            self.key_size,
            self.value_size,
            self.output_size,
            self.qk_size,
            self.vo_size,
        )

    @property
    def biases(self):
        return [
            self.use_query_bias,
            self.use_key_bias,
            self.use_value_bias,
            self.use_output_bias,
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedQueryAttention(_Attention):
    """Computes attention in which several query heads share a key and value.

    With `normalize_qk`, a LayerNorm over the features of a head, without bias
    and with an epsilon of 1e-6, is applied to query and key. With
    `num_kv_heads=1` this is multi-query attention.
    """

    name = "grouped_query_attention"

    num_heads: int = 4
    num_kv_heads: int = 2
    query_size: int = 4
    kv_size: int = 3
    output_size: int = 5
    head_size: int = 4
    use_bias: bool = False
    normalize_qk: bool = True

    @property
    def sizes(self):
        kv, head = self.kv_size, self.head_size
        return self.query_size, kv, kv, self.output_size, head, head

    @property
    def biases(self):
        return [self.use_bias] * 4

    @property
    def variant(self):
        return {"num_kv_heads": self.num_kv_heads}

    def variables(self):
        variables = super().variables()
        if self.normalize_qk:
            for name in ("query_norm", "key_norm"):
                variables[f"{name}.weight"] = Variable((self.head_size,), ones)
        return variables

    @property
    def zero_gradient(self):
        # The normalization depends on the bias.
        return frozenset() if self.normalize_qk else super().zero_gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryAttention(_Attention):
    """Computes grouped-query attention with a rotary embedding."""

    name = "rotary_attention"

    num_kv_heads: int = 1
    size: int = 4
    head_size: int = 4
    theta: float = 10_000.0

    @property
    def sizes(self):
        return *[self.size] * 4, self.head_size, self.head_size

    @property
    def variant(self):
        return {"num_kv_heads": self.num_kv_heads, "theta": self.theta}
