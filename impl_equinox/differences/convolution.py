"""Stock Equinox convolutions and pooling: one example, channels first."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr


def conv_bfloat16() -> float:
    """Returns 1 if a float32 layer cannot take a bfloat16 input."""
    conv = eqx.nn.Conv1d(1, 1, 3, key=jr.key(0))
    try:
        conv(jnp.ones((1, 5), jnp.bfloat16))
    except TypeError:  # "requires arguments to have the same dtypes"
        return 1.0
    return 0.0


def conv_transpose_order() -> float:
    """Returns by how much two outputs differ in size.

    The same numbers, by position, mean a padding of 1 in `ConvTranspose`,
    and an output padding of 1 in `ConvTranspose1d`.
    """
    key, x = jr.key(0), jnp.ones((1, 5))
    general = eqx.nn.ConvTranspose(1, 1, 1, 3, 2, 1, 0, key=key)(x)
    special = eqx.nn.ConvTranspose1d(1, 1, 3, 2, 1, 0, key=key)(x)
    return float(special.shape[-1] - general.shape[-1])


def pool_use_ceil() -> float:
    """Returns 1 if a pooling that rounds its size up raises.

    Kernel 2, stride 2 and padding 1 are a valid choice in PyTorch.
    """
    pool = eqx.nn.MaxPool1d(2, stride=2, padding=1, use_ceil=True)
    try:
        pool(jnp.arange(5.0)[None])
    except RuntimeError:  # "Paddings should be less than ... the kernel."
        return 1.0
    return 0.0


def adaptive_pool_windows() -> float:
    """Returns the mean of the second of three windows over 0, ..., 6.

    PyTorch's windows overlap: [0, 2], [2, 4], [4, 6].
    """
    pool = eqx.nn.AdaptiveAvgPool1d(3)
    return float(pool(jnp.arange(7.0)[None])[0, 1])


def adaptive_pool_larger() -> float:
    """Returns 1 if a target that is larger than the input raises."""
    pool = eqx.nn.AdaptiveAvgPool1d(8)
    try:
        pool(jnp.arange(7.0)[None])
    except ZeroDivisionError:
        return 1.0
    return 0.0
