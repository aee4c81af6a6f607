"""Flax's layers with a reparametrized weight."""

from flax import nnx

from impl_flax import layers
from impl_flax.table.column import constructs


def _layer(
    in_features: int,
    out_features: int,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Linear | nnx.Conv:
    """Returns a convolution if there is a kernel size, otherwise a Linear."""
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


@constructs(
    "spectral_norm",
    stock=("SpectralNorm",),
    kind="custom",
    using="SpectralNorm",
    page="normalization",
    keywords={
        "layer": "layer_instance",
        "num_power_iterations": "n_steps",
        "eps": "epsilon",
    },
)
def spectral_norm(
    in_features: int,
    out_features: int,
    *,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    num_power_iterations: int,
    eps: float,
    rngs: nnx.Rngs,
) -> layers.SpectralNorm:
    """Returns a layer whose weight is divided by its spectral norm."""
    return layers.SpectralNorm(
        _layer(in_features, out_features, kernel_size, use_bias, rngs),
        n_steps=num_power_iterations,
        epsilon=eps,
        rngs=rngs,
    )


@constructs(
    "weight_norm",
    stock=("WeightNorm",),
    kind="custom",
    using="WeightNorm",
    page="normalization",
    keywords={"layer": "layer_instance"},
)
def weight_norm(
    in_features: int,
    out_features: int,
    *,
    kernel_size: tuple[int, ...],
    use_bias: bool,
    axis: int | None,
    rngs: nnx.Rngs,
) -> layers.WeightNorm:
    """Returns a layer whose weight is a length times a direction."""
    if axis is not None:
        # From (out, in, *kernel) to (*kernel, in, out).
        axis = axis - 2 if axis >= 2 else -1 - axis
    return layers.WeightNorm(
        _layer(in_features, out_features, kernel_size, use_bias, rngs),
        feature_axes=axis,
    )
