"""Stock NNX convolutions on a channels-last batch."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from common.differences import RAISES, SEEDED, Family

family = Family("flax", "convolution")


@family.known_difference(
    name="conv-int-kernel",
    layer="Conv",
    quantity="number of image axes that a kernel spans",
    what="A kernel size that is a single integer means one axis, so the layer "
    "treats an image as a batch of sequences without an error.",
    expected=2.0,
    measured=1.0,
    origin="1",
    ours="The layer table passes a tuple.",
)
def conv_int_kernel() -> float:
    """Returns how many axes of an image a kernel of size 3 spans."""
    conv = nnx.Conv(1, 1, kernel_size=3, rngs=nnx.Rngs(0))
    conv(jnp.ones((1, 8, 8, 1)))  # as a (1, 8) batch of sequences
    return float(conv.kernel.ndim - 2)


@family.known_difference(
    name="conv-circular-stride",
    layer="Conv",
    quantity="shift of the windows, in elements",
    what="`'CIRCULAR'` and `'REFLECT'` pad as they do at stride 1, whatever "
    "the stride. `'SAME'` and Equinox's circular padding add less at stride "
    "2, so their windows are at other positions.",
    measured=1.0,
    origin="1",
    ours="The layer table pads the input itself when the stride is above 1.",
)
def conv_circular_stride() -> float:
    """Returns the shift between two kinds of windows at stride 2.

    The windows of padding "CIRCULAR" are compared with those of "SAME". The
    kernel picks the middle of its window, and each input element is its own
    position.
    """
    x = jnp.arange(10.0)[None, :, None]

    def middles(padding):
        conv = nnx.Conv(
            1, 1, (3,), strides=2, padding=padding, rngs=nnx.Rngs(0)
        )
        conv.kernel.set_value(jnp.array([[[0.0]], [[1.0]], [[0.0]]]))
        return conv(x)

    return float(jnp.mean(middles("SAME") - middles("CIRCULAR")))


@family.known_difference(
    name="pool-int-padding",
    layer="max_pool",
    quantity=RAISES,
    what="The pooling functions reject a padding that is a number, or has a "
    "number for an axis. The error is `'int' object is not iterable`. "
    "`nnx.Conv`, Equinox, and PyTorch accept it.",
    measured=1.0,
    origin="1",
    ours="The layer table passes pairs.",
)
def pool_int_padding() -> float:
    """Returns 1 if a padding of 1 raises an error."""
    padding: Any = 1
    try:
        nnx.max_pool(jnp.ones((1, 4, 1)), (2,), padding=padding)
    except TypeError:  # "'int' object is not iterable"
        return 1.0
    return 0.0


@family.known_difference(
    name="conv-transpose-valid",
    layer="ConvTranspose",
    quantity="size of the output, in elements",
    what="If the kernel is smaller than the stride, padding `'VALID'` gives "
    "an output of `size * stride` elements. PyTorch and Equinox return "
    "`(size - 1) * stride + kernel` elements.",
    expected=9.0,
    measured=10.0,
    origin="5 * 2",
    ours="The layer table passes pairs of integers instead of `'VALID'`.",
)
def conv_transpose_valid() -> float:
    """Returns the size of an output, which is (5 - 1) * 2 + 1 in PyTorch."""
    conv = nnx.ConvTranspose(
        1, 1, (1,), strides=2, padding="VALID", rngs=nnx.Rngs(0)
    )
    return float(conv(jnp.ones((1, 5, 1))).shape[1])


@family.known_difference(
    name="conv-transpose-lower",
    layer="ConvTranspose",
    quantity=RAISES,
    what="Padding `'SAME_LOWER'` raises `String padding is not implemented` "
    "at a stride above 1. Equinox supports it.",
    measured=1.0,
    origin="1",
    ours="`impl_flax.layers.ConvTranspose` supports it.",
)
def conv_transpose_lower() -> float:
    """Returns 1 if padding "SAME_LOWER" raises an error at stride 2."""
    conv = nnx.ConvTranspose(
        1, 1, (3,), strides=2, padding="SAME_LOWER", rngs=nnx.Rngs(0)
    )
    try:
        conv(jnp.ones((1, 5, 1)))
    except ValueError:  # "String padding is not implemented"
        return 1.0
    return 0.0


@family.known_difference(
    name="conv-transpose-fan-in",
    layer="ConvTranspose",
    quantity="standard deviation of the kernel times sqrt(fan-in)",
    what="With `transpose_kernel=True` the initializer uses the number of "
    "output channels as the number of input channels.",
    expected=1.0,
    measured=0.2,
    band=SEEDED,
    origin="sqrt(in / out) = sqrt(8 / 200)",
    ours="Compared models start from the same arrays, so the initializers "
    "have no effect.",
)
def conv_transpose_fan_in() -> float:
    """Returns the standard deviation of a kernel times sqrt(fan-in).

    The layer has 8 input channels and 200 output channels, so each output
    element is a sum over 8 * 5 * 5 input elements.
    """
    conv = nnx.ConvTranspose(
        8, 200, (5, 5), transpose_kernel=True, rngs=nnx.Rngs(0)
    )
    return float(jnp.std(conv.kernel[...]) * (8 * 5 * 5) ** 0.5)
