"""Flax's linear layers."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from common.layers import Size
from impl_flax import layers
from impl_flax.table.column import constructs


def _with_groups(layer: Any, x: Any, *, key: Any) -> Any:
    """Maps a layer over the batch if the group axes must come first."""
    del key
    return jax.vmap(layer)(x) if layer.batch_axis else layer(x)


@constructs("linear", stock=("Linear",), page="linear")
def linear(
    in_features: Size, out_features: Size, *, use_bias: bool, rngs: nnx.Rngs
) -> nnx.Module:
    """Returns an affine map of the last axis."""
    kind: Any = nnx.Linear
    if "scalar" in (in_features, out_features):
        kind = layers.ScalarLinear  # a size of 1 without an axis
    return kind(in_features, out_features, use_bias=use_bias, rngs=rngs)


@constructs("identity", stock=("identity",), page="activations")
def identity(*, rngs: nnx.Rngs) -> Callable[..., Array]:
    """Returns the identity function."""
    del rngs
    return nnx.identity


@constructs(
    "function", kind="composition", using="a function in nnx.Sequential"
)
def function(
    function: Literal["tanh", "square"], *, rngs: nnx.Rngs
) -> nnx.Sequential:
    """Wraps a function in a module."""
    del rngs
    return nnx.Sequential(getattr(jnp, function))


@constructs("sequential", stock=("Sequential",), page="../helpers")
def sequential(
    sizes: tuple[int, ...], *, use_bias: bool, rngs: nnx.Rngs
) -> nnx.Sequential:
    """Returns Linear layers with tanh between them."""
    stack = []
    for i, size in enumerate(sizes[1:]):
        if i > 0:
            stack.append(nnx.tanh)
        stack.append(nnx.Linear(sizes[i], size, use_bias=use_bias, rngs=rngs))
    return nnx.Sequential(*stack)


@constructs("mlp", kind="custom", using="MLP")
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
    rngs: nnx.Rngs,
) -> layers.MLP:
    """Returns Linear layers with activations between them."""
    del scan  # only affects how Equinox compiles the layer
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


@constructs(
    "linear_general",
    call=_with_groups,
    stock=("LinearGeneral",),
    page="linear",
)
def linear_general(
    in_features: tuple[int, ...],
    out_features: tuple[int, ...],
    *,
    axis: tuple[int, ...],
    groups: tuple[int, ...],
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.LinearGeneral:
    """Returns an affine map of several axes."""
    return nnx.LinearGeneral(
        in_features,
        out_features,
        axis=axis,
        batch_axis=dict(enumerate(groups)),
        use_bias=use_bias,
        rngs=rngs,
    )


@constructs("einsum", stock=("Einsum",), page="linear")
def einsum(
    equation: str,
    *,
    shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    rngs: nnx.Rngs,
) -> nnx.Einsum:
    """Returns an affine map that is written as an einsum equation."""
    return nnx.Einsum(equation, shape, bias_shape, rngs=rngs)
