"""Flax's wrappers that compute a layer's weight from others."""

from flax import nnx

from impl_flax import layers


def spectral_norm(
    in_features,
    out_features,
    *,
    kernel_size,
    use_bias,
    num_power_iterations,
    eps,
    rngs,
):
    """Makes a layer whose weight's largest singular value is about 1."""
    return layers.SpectralNorm(
        _layer(in_features, out_features, kernel_size, use_bias, rngs),
        n_steps=num_power_iterations,
        epsilon=eps,
        rngs=rngs,
    )


def weight_norm(
    in_features, out_features, *, kernel_size, use_bias, axis, rngs
):
    """Makes a layer whose weight is a direction and a length."""
    if axis is not None:
        # From (out, in, *kernel) to (*kernel, in, out).
        axis = axis - 2 if axis >= 2 else -1 - axis
    return layers.WeightNorm(
        _layer(in_features, out_features, kernel_size, use_bias, rngs),
        feature_axes=axis,
    )


def _layer(in_features, out_features, kernel_size, use_bias, rngs):
    if not kernel_size:
        return nnx.Linear(
            in_features, out_features, use_bias=use_bias, rngs=rngs
        )
    return nnx.Conv(
        in_features,
        out_features,
        kernel_size,
        padding="VALID",
        use_bias=use_bias,
        rngs=rngs,
    )
