"""Stock NNX convolutions, on a batch with channels last."""

import jax.numpy as jnp
from flax import nnx


def conv_int_kernel() -> float:
    """Returns over how many axes of an image a kernel of size 3 reaches."""
    conv = nnx.Conv(1, 1, kernel_size=3, rngs=nnx.Rngs(0))
    conv(jnp.ones((1, 8, 8, 1)))  # as if it were (1, 8) sequences
    return float(conv.kernel.ndim - 2)


def conv_circular_stride() -> float:
    """Returns by how much the circular windows are shifted, at stride 2.

    Against those of padding "SAME". The kernel picks the middle of its
    window, and an input is its own position.
    """
    x = jnp.arange(10.0)[None, :, None]

    def middles(padding):
        conv = nnx.Conv(
            1, 1, (3,), strides=2, padding=padding, rngs=nnx.Rngs(0)
        )
        conv.kernel.set_value(jnp.array([[[0.0]], [[1.0]], [[0.0]]]))
        return conv(x)

    return float(jnp.mean(middles("SAME") - middles("CIRCULAR")))


def conv_transpose_valid() -> float:
    """Returns the size of an output; PyTorch's is (5 - 1) * 2 + 1."""
    conv = nnx.ConvTranspose(
        1, 1, (1,), strides=2, padding="VALID", rngs=nnx.Rngs(0)
    )
    return float(conv(jnp.ones((1, 5, 1))).shape[1])


def conv_transpose_lower() -> float:
    """Returns 1 if padding "SAME_LOWER" raises at stride 2."""
    conv = nnx.ConvTranspose(
        1, 1, (3,), strides=2, padding="SAME_LOWER", rngs=nnx.Rngs(0)
    )
    try:
        conv(jnp.ones((1, 5, 1)))
    except ValueError:  # "String padding is not implemented"
        return 1.0
    return 0.0


def conv_transpose_fan_in() -> float:
    """Returns the deviation of a kernel, in units of 1 / sqrt(fan-in).

    8 channels in, 200 out: an output sums over 8 x 5 x 5 inputs.
    """
    conv = nnx.ConvTranspose(
        8, 200, (5, 5), transpose_kernel=True, rngs=nnx.Rngs(0)
    )
    return float(jnp.std(conv.kernel[...]) * (8 * 5 * 5) ** 0.5)
