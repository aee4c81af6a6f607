"""Equinox's layers with a reparametrized weight."""

import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from impl_equinox.table import calls
from impl_equinox.table.column import constructs


def _layer(
    in_features: int,
    out_features: int,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    key: PRNGKeyArray,
) -> eqx.Module:
    """Returns a convolution if there is a kernel size, otherwise a Linear."""
    if not kernel_size:
        return eqx.nn.Linear(
            in_features, out_features, use_bias=use_bias, key=key
        )
    return eqx.nn.Conv(
        len(kernel_size),
        in_features,
        out_features,
        kernel_size,
        use_bias=use_bias,
        key=key,
    )


@constructs(
    "spectral_norm",
    call=calls.with_state,
    stock=("SpectralNorm",),
    page="normalisation",
)
def spectral_norm(
    in_features: int,
    out_features: int,
    *,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    num_power_iterations: int,
    eps: float,
    key: PRNGKeyArray,
) -> eqx.nn.SpectralNorm:
    """Returns a layer whose weight is divided by its spectral norm."""
    layer_key, estimate_key = jr.split(key)
    return eqx.nn.SpectralNorm(
        _layer(in_features, out_features, kernel_size, use_bias, layer_key),
        "weight",
        num_power_iterations,
        eps,
        key=estimate_key,
    )


@constructs(
    "weight_norm",
    call=calls.channels_first,
    stock=("WeightNorm",),
    page="normalisation",
)
def weight_norm(
    in_features: int,
    out_features: int,
    *,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    axis: int | None,
    key: PRNGKeyArray,
) -> eqx.nn.WeightNorm:
    """Returns a layer whose weight is a length times a direction."""
    return eqx.nn.WeightNorm(
        _layer(in_features, out_features, kernel_size, use_bias, key),
        axis=axis,
    )
