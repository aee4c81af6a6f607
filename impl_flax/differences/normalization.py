"""Stock NNX LayerNorm and GroupNorm, whose variance is E[x^2] - E[x]^2."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from common.differences import Family

family = Family("flax", "normalization")


@family.known_difference(
    name="layer-norm-mean-1e4",
    layer="LayerNorm",
    quantity="an output whose exact value is 1",
    what="By default the layer computes the variance as `E[x^2] - E[x]^2`. "
    "When the mean is 1e4 times the standard deviation, float32 rounds this "
    "variance to 0, and the output is too large by a factor of 1 / sqrt(eps). "
    "The norms that attention applies to the query and the key have the same "
    "error.",
    expected=1.0,
    measured=1 / math.sqrt(1e-6),
    origin="1 / sqrt(eps)",
    ours="The layer table passes `use_fast_variance=False`.",
)
def layer_norm_mean_1e4() -> float:
    """Returns the output for 1e4 + 1 when the other feature is 1e4 - 1.

    The variance is 1. E[x^2] is 1e8 + 1, which float32 rounds to 1e8.
    """
    norm = nnx.LayerNorm(2, epsilon=1e-6, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[1e4 - 1, 1e4 + 1]]))[0, 1])


@family.known_difference(
    name="group-norm-mean-1e4",
    layer="GroupNorm",
    quantity="an output whose exact value is 1",
    what="`GroupNorm` and `InstanceNorm` round the variance to 0 in the same "
    "way as `LayerNorm` (see layer-norm-mean-1e4).",
    expected=1.0,
    measured=1 / math.sqrt(1e-6),
    origin="1 / sqrt(eps)",
    ours="The layer table passes `use_fast_variance=False`.",
)
def group_norm_mean_1e4() -> float:
    """Returns the output for 1e4 + 1 when the other feature is 1e4 - 1.

    The variance is 1. E[x^2] is 1e8 + 1, which float32 rounds to 1e8.
    """
    norm = nnx.GroupNorm(2, num_groups=1, epsilon=1e-6, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[1e4 - 1, 1e4 + 1]]))[0, 1])


@family.known_difference(
    name="layer-norm-eps",
    layer="LayerNorm",
    quantity="the second output for the features -1e-3 and 1e-3",
    what="The default epsilon is 1e-6, also in `RMSNorm` and `GroupNorm`. It "
    "is 1e-5 in Equinox, in PyTorch, and in `nnx.BatchNorm`. Inputs of about "
    "1e-3 give outputs that are more than twice as large.",
    expected=1 / math.sqrt(11),
    measured=1 / math.sqrt(2),
    origin="1e-3 / sqrt(1e-6 + eps)",
    ours="The layer table passes the same epsilon to both layers.",
)
def layer_norm_eps() -> float:
    """Returns the output for 1e-3 when the other feature is -1e-3."""
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    return float(norm(jnp.array([[-1e-3, 1e-3]]))[0, 1])


@family.known_difference(
    name="layer-norm-bfloat16",
    layer="LayerNorm",
    dtype="bfloat16",
    quantity="size of an output element, in bytes",
    what="Float32 parameters promote a bfloat16 input to float32, also in "
    "`RMSNorm`, `GroupNorm`, and `BatchNorm`. Equinox returns the dtype of "
    "the input, except in `BatchNorm`.",
    expected=2.0,
    measured=4.0,
    origin="4",
    ours="The layer table compares models of a single dtype.",
)
def layer_norm_bfloat16() -> float:
    """Returns the size of an output element, in bytes for a bfloat16 input."""
    norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
    return float(norm(jnp.ones((1, 4), jnp.bfloat16)).itemsize)


@family.known_difference(
    name="layer-norm-masked-nan",
    layer="LayerNorm",
    quantity="fraction of gradient elements that are NaN",
    what="A NaN in an element that the mask excludes makes every gradient "
    "NaN, because the gradient multiplies the NaN by 0. The loss and the "
    "statistics do not depend on the element.",
    measured=1.0,
    origin="1",
    ours="The definition and `impl_equinox.layers.LayerNorm` do not "
    "differentiate such an element. The layer table draws finite inputs.",
)
def layer_norm_masked_nan() -> float:
    """Returns the fraction of gradients that are NaN.

    One of four elements is NaN. The mask excludes it, and the loss is one of
    the other outputs.
    """
    norm = nnx.LayerNorm(4, use_fast_variance=False, rngs=nnx.Rngs(0))
    x = jnp.array([[1.0, 2.0, 4.0, jnp.nan]])

    def loss(x):
        return norm(x, mask=jnp.array([[True, True, True, False]]))[0, 0]

    return float(jnp.mean(jnp.isnan(jax.grad(loss)(x))))


@family.known_difference(
    name="group-norm-reduction-axes",
    layer="GroupNorm",
    quantity="an output whose exact value is 1",
    what="If `reduction_axes` omits an axis between the batch and the "
    "channels, the layer repeats the group statistics along that axis, so "
    "they are applied to the wrong channels.",
    expected=1.0,
    measured=1 / 3,
    origin="1 / 3, where 3 is the standard deviation of the other group",
    ours="The layer table uses the default `reduction_axes`.",
)
def group_norm_reduction_axes() -> float:
    """Returns the output for 1 in a group of -1 and 1.

    The layer should normalize each of the two positions by itself and return
    1. It divides by 3 instead, the standard deviation of the other group.
    """
    norm = nnx.GroupNorm(
        4, num_groups=2, reduction_axes=(-1,), rngs=nnx.Rngs(0)
    )
    position = jnp.array([-1.0, 1.0, -3.0, 3.0])
    x = jnp.stack([position, position])[None]  # (1, 2, 4)
    return float(norm(x)[0, 0, 1])
