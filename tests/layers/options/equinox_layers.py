"""Options of Equinox's layers."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from equinox.nn import _embedding

from common import layers as definitions
from tests.layers.options.drawing import Draw

KEY = jr.key(0)


def inference(draw: Draw) -> Any:
    """Nothing is random, and no buffer changes."""
    x, sequence = draw(4), draw(3, 4)
    dropout = eqx.nn.Dropout(0.5, inference=True)
    attention = eqx.nn.MultiheadAttention(
        2, 4, dropout_p=0.5, inference=True, key=KEY
    )
    attention, params = draw.fill(attention)
    outputs = [
        dropout(x),
        eqx.nn.Dropout(0.5)(x, inference=True),
        attention(sequence, sequence, sequence),
        eqx.nn.inference_mode(attention, False)(
            sequence, sequence, sequence, inference=True
        ),
    ]
    attended = definitions.multihead_attention(
        *[sequence[None]] * 3, params=params, num_heads=2
    )[0]
    return outputs, [x, x, attended, attended]


def inference_with_state(draw: Draw) -> Any:
    x, weight, bias = draw(4), draw(3, 4), draw(3)
    linear = eqx.tree_at(
        lambda linear: (linear.weight, linear.bias),
        eqx.nn.Linear(4, 3, key=KEY),
        (weight, bias),
    )
    norm, norm_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        4, "batch", mode="batch", inference=True
    )
    layer, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        linear, "weight", inference=True, key=KEY
    )
    u, v = state.get(layer.uv_index)
    training = eqx.nn.inference_mode((norm, layer), False)
    got = [
        norm(x, norm_state)[0],
        layer(x, state)[0],
        training[0](x, norm_state, inference=True)[0],
        training[1](x, state, inference=True)[0],
    ]
    want = [
        x / jnp.sqrt(1 + 1e-5),
        definitions.linear(x, weight / (u @ weight @ v), bias),
    ]
    return got, want * 2


def deprecated_names(draw: Draw) -> Any:
    """They still mean what they meant, and warn."""
    x, sequence = draw(4), draw(3, 4)

    def warned(
        function: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            result = function(*args, **options)
        assert any("deprecated" in str(one.message) for one in found)
        return result

    dropout = warned(eqx.nn.Dropout, 0.5, deterministic=True)
    norm = warned(
        eqx.nn.LayerNorm,
        4,
        use_weight=False,
        use_bias=False,
        elementwise_affine=True,
    )
    norm, affine = draw.fill(norm)
    attention, params = draw.fill(
        eqx.nn.MultiheadAttention(2, 4, dropout_p=0.5, key=KEY)
    )
    inputs = [sequence] * 3
    got = [
        dropout(x),
        warned(eqx.nn.Dropout(0.5), x, deterministic=True),
        norm(x),
        warned(attention, *inputs, deterministic=True),
    ]
    want = [
        x,
        x,
        definitions.layer_norm(x, **affine, shape=(4,), eps=1e-5),
        definitions.multihead_attention(
            *[sequence[None]] * 3, params=params, num_heads=2
        )[0],
    ]
    return got, want


def an_embedding_of_given_rows(draw: Draw) -> Any:
    rows = draw(5, 3)
    layer = eqx.nn.Embedding(weight=rows)
    return layer(2), definitions.embedding(jnp.array(2), rows)


def weight_norm_of_a_bias(draw: Draw) -> Any:
    x, length = draw(4), draw(1)
    linear, params = draw.fill(eqx.nn.Linear(4, 3, key=KEY))
    layer = eqx.nn.WeightNorm(linear, weight_name="bias", axis=None)
    layer = eqx.tree_at(lambda layer: layer.g, layer, length)
    bias = definitions.weight_norm(params["bias"], length, axis=None)
    return layer(x), definitions.linear(x, params["weight"], bias)


def rotary_embedding(draw: Draw) -> Any:
    """A first layer; a second one of this size would get its tables."""
    x = draw(5, 6)
    before = dict(_embedding.internal_rope_embedding_cache)
    _embedding.internal_rope_embedding_cache.clear()
    try:
        got = eqx.nn.RotaryPositionalEmbedding(6, theta=100.0)(x)
    finally:
        _embedding.internal_rope_embedding_cache.clear()
        _embedding.internal_rope_embedding_cache.update(before)
    return got, definitions.rotary_embedding(x[None], 100.0)[0]


def layers_that_take_a_state(draw: Draw) -> Any:
    """They return it with their outputs, as `Sequential` needs it."""
    x = draw(4)
    norms = [
        eqx.nn.LayerNorm(4),
        eqx.nn.RMSNorm(4),
        eqx.nn.GroupNorm(2, 4),
    ]
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)(norms)
    got, got_state = model(x, state=state)
    alone = [norm(x, state=state)[0] for norm in norms]
    first, second, third = (
        lambda x: definitions.layer_norm(x, shape=(4,), eps=1e-5),
        lambda x: definitions.rms_norm(x, shape=(4,), eps=1e-5),
        lambda x: definitions.group_norm(x[None], groups=2, eps=1e-5)[0],
    )
    assert jax.tree.leaves(got_state) == jax.tree.leaves(state)
    return [got, *alone], [
        third(second(first(x))),
        first(x),
        second(x),
        third(x),
    ]


COMPARISONS = (
    inference,
    inference_with_state,
    deprecated_names,
    an_embedding_of_given_rows,
    weight_norm_of_a_bias,
    rotary_embedding,
    layers_that_take_a_state,
)
