"""Equinox's linear layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from impl_equinox import layers


def linear(in_features, out_features, *, use_bias, key):
    """Makes an affine map of the last axis."""
    return eqx.nn.Linear(in_features, out_features, use_bias=use_bias, key=key)


def identity(*, key):
    """Makes a layer that does nothing."""
    del key
    return eqx.nn.Identity()


def function(function, *, key):
    """Makes a layer of a plain function."""
    del key
    return eqx.nn.Lambda(getattr(jnp, function))


def sequential(sizes, *, use_bias, key):
    """Makes Linears with tanh between them."""
    keys = jr.split(key, len(sizes) - 1)
    stack = []
    for i, size in enumerate(sizes[1:]):
        if i > 0:
            stack.append(eqx.nn.Lambda(jnp.tanh))
        stack.append(eqx.nn.Linear(sizes[i], size, use_bias, key=keys[i]))
    return eqx.nn.Sequential(stack)


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
    key,
):
    """Makes Linears with activations between them."""
    return eqx.nn.MLP(
        in_size,
        out_size,
        width_size,
        depth,
        activation=getattr(jax.nn, activation),
        # Without hidden layers, Equinox leaves this one out.
        final_activation=getattr(jax.nn, final_activation),
        use_bias=use_bias,
        use_final_bias=use_final_bias,
        # One array of all hidden layers; compiles faster.
        scan=scan,
        key=key,
    )


def linear_general(in_features, out_features, *, axis, groups, use_bias, key):
    """Makes an affine map of several axes."""
    return layers.LinearGeneral(
        in_features,
        out_features,
        axis=axis,
        groups=groups,
        use_bias=use_bias,
        key=key,
    )


def einsum(equation, *, shape, bias_shape, key):
    """Makes an affine map that an equation describes."""
    return layers.Einsum(equation, shape, bias_shape, key=key)
