"""Equinox's wrappers that compute a layer's weight from others."""

import equinox as eqx
import jax.random as jr

from impl_equinox.table import calls


def spectral_norm(
    in_features,
    out_features,
    *,
    kernel_size,
    use_bias,
    num_power_iterations,
    eps,
    key,
):
    """Makes a layer whose weight's largest singular value is about 1."""
    layer_key, estimate_key = jr.split(key)
    return eqx.nn.SpectralNorm(
        _layer(in_features, out_features, kernel_size, use_bias, layer_key),
        "weight",
        num_power_iterations,
        eps,
        key=estimate_key,
    )


def weight_norm(
    in_features, out_features, *, kernel_size, use_bias, axis, key
):
    """Makes a layer whose weight is a direction and a length."""
    return eqx.nn.WeightNorm(
        _layer(in_features, out_features, kernel_size, use_bias, key),
        axis=axis,
    )


def _layer(in_features, out_features, kernel_size, use_bias, key):
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


CALLS = {
    "spectral_norm": calls.with_state,
    "weight_norm": calls.channels_first,
}
