"""Options of Flax's functions, linear layers and attention."""

import functools
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common import layers as definitions
from common.layers import within
from impl_flax.layers import dot_product_attention
from tests.layers.options.drawing import Draw, mask

KEY = jr.key(0)


def functions_with_a_slope(draw: Draw) -> Any:
    x = draw(2, 3, 4)
    got = nnx.celu(x, 0.5), nnx.elu(x, 0.5), nnx.leaky_relu(x, 0.2)
    want = (
        definitions.celu(x, 0.5),
        definitions.elu(x, 0.5),
        definitions.leaky_relu(x, 0.2),
    )
    return got, want


def functions_along_another_axis(draw: Draw) -> Any:
    x = draw(2, 4, 3)
    indices = jnp.array([0, 2, 1])
    standardize: Any = nnx.standardize

    def moved(function: Any) -> Any:
        return jnp.moveaxis(function(jnp.moveaxis(x, 1, -1)), -1, 1)

    got = (
        nnx.glu(x, axis=1),
        nnx.softmax(x, axis=1),
        nnx.log_softmax(x, axis=1),
        standardize(x, axis=1, epsilon=0.1, algorithm="stable"),
        nnx.logsumexp(x, axis=1, keepdims=True),
        nnx.one_hot(indices, 3, dtype=jnp.int32, axis=0),
    )
    want = (
        moved(definitions.glu),
        moved(definitions.softmax),
        moved(definitions.log_softmax),
        moved(functools.partial(definitions.standardize, eps=0.1)),
        definitions.logsumexp(jnp.moveaxis(x, 1, -1))[:, None],
        definitions.one_hot(indices, 3).T,
    )
    return got, want


def functions_of_some_elements(draw: Draw) -> Any:
    """`where` leaves the other elements out of the sums."""
    x, factors = draw(3, 5), draw(3, 5)
    where = mask(3, 5)
    # The function of the selected elements of one row at a time.
    rows = [(row, np.flatnonzero(keep)) for row, keep in enumerate(where)]

    def some(function: Any, rest: float) -> Any:
        return jnp.stack(
            [
                jnp.full(5, rest).at[kept].set(function(x[row, kept]))
                for row, kept in rows
            ]
        )

    total, sign = nnx.logsumexp(x, axis=-1, b=factors, return_sign=True)
    weighted = jnp.sum(factors * jnp.exp(x), axis=-1)
    mean, variance = jnp.mean(x, -1), jnp.var(x, -1)
    got = (
        nnx.softmax(x, where=where),
        nnx.log_softmax(x, where=where),
        nnx.logsumexp(x, axis=-1, where=where),
        nnx.standardize(x, where=where)[where],
        nnx.standardize(x, mean=mean[:, None], variance=variance[:, None]),
        (total, sign),
    )
    kept = [x[row, kept] for row, kept in rows]
    want = (
        some(definitions.softmax, 0.0),
        some(definitions.log_softmax, -np.inf),
        jnp.stack([definitions.logsumexp(row) for row in kept]),
        jnp.concatenate([definitions.standardize(row) for row in kept]),
        definitions.standardize(x),
        (jnp.log(jnp.abs(weighted)), jnp.sign(weighted)),
    )
    return got, want


def einsum_with_the_equation_of_a_call(draw: Draw) -> Any:
    layer, params = draw.fill(
        nnx.Einsum("ab,bc->ac", (4, 3), rngs=nnx.Rngs(0))
    )
    x = draw(2, 5, 4)
    got = layer(x, einsum_str="abc,cd->abd")
    return got, jnp.einsum("abc,cd->abd", x, params["weight"])


def sequential_with_random_numbers(draw: Draw) -> Any:
    """`Sequential` hands `rngs` on to the layers that take it."""
    x = draw(3, 4)
    layer = nnx.Sequential(nnx.Dropout(0.5), nnx.tanh)
    layer.train()
    got = layer(x, rngs=nnx.Rngs(dropout=0))
    key = nnx.Rngs(dropout=0).dropout()
    return got, jnp.tanh(definitions.dropout(x, key, 0.5))


def dropout_from_its_own_stream(draw: Draw) -> Any:
    x = draw(3, 4)
    layer = nnx.Dropout(0.5, rng_collection="noise", rngs=nnx.Rngs(noise=1))
    silent = nnx.Dropout(0.5, deterministic=True)
    key = nnx.Rngs(noise=1).noise.fork()()
    got = layer(x), silent(x), layer(x, deterministic=True)
    return got, (definitions.dropout(x, key, 0.5), x, x)


# --- attention ---------------------------------------------------------------


def _attention(**options: Any) -> nnx.MultiHeadAttention:
    # The gradient of a bias of the keys would be round-off.
    return nnx.MultiHeadAttention(
        2, 4, 6, 5, use_bias=False, rngs=nnx.Rngs(0), **options
    )


def _weights(params: Any, query: Any, keys: Any, where: Any = None) -> Any:
    heads = [
        definitions.linear(x, **within(name, params)).reshape(2, -1, 2, 3)
        for name, x in (("query_proj", query), ("key_proj", keys))
    ]
    return definitions.attention_weights(heads[0], heads[1], where)


def causal_attention(draw: Draw) -> Any:
    """`is_causal` hides later keys; `sow_weights` stores the weights."""
    layer, params = draw.fill(_attention(decode=False))
    x = draw(2, 3, 4)
    # Flax multiplies the causal mask by the one that it gets.
    where = jnp.broadcast_to(jnp.tri(3) > 0, (2, 3, 3))
    capture: Any = nnx.capture
    call: Any = capture(layer, nnx.Intermediate)
    y, sown = call(x, is_causal=True, sow_weights=True)
    (weights,) = sown["attention_weights"].get_value()
    want = definitions.multihead_attention(
        x, x, x, where, params=params, num_heads=2
    )
    return (y, weights), (want, _weights(params, x, x, where))


def decoding(draw: Draw) -> Any:
    """A step with the cache is a row of causal attention."""
    layer, params = draw.fill(
        _attention(
            decode=True,
            num_kv_heads=1,
            # The default computes the softmax in float32.
            attention_fn=dot_product_attention,
        )
    )
    x = draw(2, 2, 4)
    layer.init_cache(x.shape, dtype=x.dtype)
    first = layer(x[:, :1])
    layer.decode = False  # the argument of the call takes precedence
    second = layer(x[:, 1:], decode=True)
    want = definitions.multihead_attention(
        x,
        x,
        x,
        jnp.broadcast_to(jnp.tri(2) > 0, (2, 2, 2)),
        params=params,
        num_heads=2,
        num_kv_heads=1,
    )
    return jnp.concatenate((first, second), axis=1), want


def dropout_of_attention(draw: Draw) -> Any:
    """By default one mask is shared by all heads of all examples."""
    options = {"dropout_rate": 0.5, "decode": False}
    shared, params = draw.fill(_attention(**options))
    single, also = draw.fill(_attention(**options, broadcast_dropout=False))
    silent, rest = draw.fill(
        _attention(
            **options, deterministic=True, attention_fn=dot_product_attention
        )
    )
    x = draw(2, 3, 4)

    def stream() -> Any:
        return KEY

    got = [
        shared(x, rngs=stream, deterministic=False),
        single(x, rngs=stream, deterministic=False),
        silent(x),
    ]
    silent.deterministic = False  # the argument of the call takes precedence
    got.append(silent(x, deterministic=True))
    drops = (
        functools.partial(definitions.dropout, broadcast_dims=(0, 1)),
        definitions.dropout,
    )
    want = [
        definitions.multihead_attention(
            x,
            x,
            x,
            params=arrays,
            num_heads=2,
            key=KEY,
            dropout_p=0.5,
            drop=drop,
        )
        for arrays, drop in zip((params, also), drops, strict=True)
    ]
    without = definitions.multihead_attention(
        x, x, x, params=rest, num_heads=2
    )
    return got, [*want, without, without]


COMPARISONS = (
    functions_with_a_slope,
    functions_along_another_axis,
    functions_of_some_elements,
    einsum_with_the_equation_of_a_call,
    sequential_with_random_numbers,
    dropout_from_its_own_stream,
    causal_attention,
    decoding,
    dropout_of_attention,
)
