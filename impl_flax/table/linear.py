"""Flax's linear layers."""

import jax
import jax.numpy as jnp
from flax import nnx

from impl_flax import layers


def _with_groups(layer, x, *, key):
    """Calls a layer whose groups come first, so not behind a batch axis."""
    del key
    return jax.vmap(layer)(x) if layer.batch_axis else layer(x)


CALLS = {"linear_general": _with_groups}


def linear(in_features, out_features, *, use_bias, rngs):
    """Makes an affine map of the last axis."""
    kind = nnx.Linear
    if "scalar" in (in_features, out_features):
        kind = layers.ScalarLinear  # 1, without an axis
    return kind(in_features, out_features, use_bias=use_bias, rngs=rngs)


def identity(*, rngs):
    """Returns the function that does nothing."""
    del rngs
    return nnx.identity


def function(function, *, rngs):
    """Makes a layer of a plain function."""
    del rngs
    return nnx.Sequential(getattr(jnp, function))


def sequential(sizes, *, use_bias, rngs):
    """Makes Linears with tanh between them."""
    stack = []
    for i, size in enumerate(sizes[1:]):
        if i > 0:
            stack.append(nnx.tanh)
        stack.append(nnx.Linear(sizes[i], size, use_bias=use_bias, rngs=rngs))
    return nnx.Sequential(*stack)


def mlp(
    in_size,
    out_size,
    *,
    width_size,
    depth,
    activation,
    final_activation,
    use_bias,
    use_final_bias,
    scan,
    rngs,
):
    """Makes Linears with activations between them."""
    del scan  # how Equinox compiles it
    return layers.MLP(
        in_size,
        out_size,
        width_size,
        depth,
        activation=getattr(nnx, activation),
        final_activation=getattr(nnx, final_activation),
        use_bias=use_bias,
        use_final_bias=use_final_bias,
        rngs=rngs,
    )


def linear_general(in_features, out_features, *, axis, groups, use_bias, rngs):
    """Makes an affine map of several axes."""
    return nnx.LinearGeneral(
        in_features,
        out_features,
        axis=axis,
        batch_axis=dict(enumerate(groups)),
        use_bias=use_bias,
        rngs=rngs,
    )


def einsum(equation, *, shape, bias_shape, rngs):
    """Makes an affine map that an equation describes."""
    return nnx.Einsum(equation, shape, bias_shape, rngs=rngs)
