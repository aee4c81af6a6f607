"""Equinox's linear layers."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from common.layers import Size
from impl_equinox import layers
from impl_equinox.table.column import constructs


@constructs("linear", stock=("Linear",), page="linear")
def linear(
    in_features: Size, out_features: Size, *, use_bias: bool, key: PRNGKeyArray
) -> eqx.nn.Linear:
    """Returns an affine map of the last axis."""
    return eqx.nn.Linear(in_features, out_features, use_bias=use_bias, key=key)


@constructs("identity", stock=("Identity",), page="linear")
def identity(*, key: PRNGKeyArray) -> eqx.nn.Identity:
    """Returns the identity layer."""
    del key
    return eqx.nn.Identity()


@constructs("function", stock=("Lambda",), page="sequential")
def function(
    function: Literal["tanh", "square"], *, key: PRNGKeyArray
) -> eqx.nn.Lambda:
    """Wraps a function in a layer."""
    del key
    return eqx.nn.Lambda(getattr(jnp, function))


@constructs("sequential", stock=("Sequential",), page="sequential")
def sequential(
    sizes: tuple[int, ...], *, use_bias: bool, key: PRNGKeyArray
) -> eqx.nn.Sequential:
    """Returns Linear layers with tanh between them."""
    keys = jr.split(key, len(sizes) - 1)
    stack = []
    for i, size in enumerate(sizes[1:]):
        if i > 0:
            stack.append(eqx.nn.Lambda(jnp.tanh))
        stack.append(eqx.nn.Linear(sizes[i], size, use_bias, key=keys[i]))
    return eqx.nn.Sequential(stack)


@constructs("mlp", stock=("MLP",), page="mlp")
def mlp(
    in_size: Size,
    out_size: Size,
    *,
    width_size: int,
    depth: int,
    activation: str,
    final_activation: str,
    use_bias: bool,
    use_final_bias: bool,
    scan: bool,
    key: PRNGKeyArray,
) -> eqx.nn.MLP:
    """Returns Linear layers with activations between them."""
    return eqx.nn.MLP(
        in_size,
        out_size,
        width_size,
        depth,
        activation=getattr(jax.nn, activation),
        # Equinox does not apply it if there are no hidden layers.
        final_activation=getattr(jax.nn, final_activation),
        use_bias=use_bias,
        use_final_bias=use_final_bias,
        # Stacks the hidden layers and runs them in a `jax.lax.scan`.
        scan=scan,
        key=key,
    )


@constructs("linear_general", kind="custom", using="LinearGeneral")
def linear_general(
    in_features: tuple[int, ...],
    out_features: tuple[int, ...],
    *,
    axis: tuple[int, ...],
    groups: tuple[int, ...],
    use_bias: bool,
    key: PRNGKeyArray,
) -> layers.LinearGeneral:
    """Returns an affine map of several axes."""
    return layers.LinearGeneral(
        in_features,
        out_features,
        axis=axis,
        groups=groups,
        use_bias=use_bias,
        key=key,
    )


@constructs("einsum", kind="custom", using="Einsum")
def einsum(
    equation: str,
    *,
    shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    key: PRNGKeyArray,
) -> layers.Einsum:
    """Returns an affine map that is written as an einsum equation."""
    return layers.Einsum(equation, shape, bias_shape, key=key)
