"""Stock Equinox convolutions and pooling on one channels-first example."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from common.differences import RAISES, Family

family = Family("equinox", "convolution")


@family.known_difference(
    name="conv-bfloat16",
    layer="Conv",
    dtype="bfloat16",
    quantity=RAISES,
    what="A float32 layer rejects a bfloat16 input. The error is `requires "
    "arguments to have the same dtypes`. `eqx.nn.Linear` and `nnx.Conv` "
    "promote such an input.",
    measured=1.0,
    origin="1",
    ours="The layer table compares models of a single dtype.",
)
def conv_bfloat16() -> float:
    """Returns 1 if a float32 layer rejects a bfloat16 input."""
    conv = eqx.nn.Conv1d(1, 1, 3, key=jr.key(0))
    try:
        conv(jnp.ones((1, 5), jnp.bfloat16))
    except TypeError:  # "requires arguments to have the same dtypes"
        return 1.0
    return 0.0


@family.known_difference(
    name="conv-transpose-order",
    layer="ConvTranspose",
    quantity="difference of two output sizes, in elements",
    what="The positional arguments of `ConvTranspose` are stride, padding, "
    "output_padding. Those of `ConvTranspose1d`, `2d` and `3d` are stride, "
    "output_padding, padding.",
    measured=3.0,
    origin="2 * padding + output_padding = 2 + 1",
    ours="The layer table passes both by keyword.",
)
def conv_transpose_order() -> float:
    """Returns the difference of the output sizes of two layers.

    Both layers get the same positional arguments, which mean a padding of 1
    for `ConvTranspose` and an output padding of 1 for `ConvTranspose1d`.
    """
    key, x = jr.key(0), jnp.ones((1, 5))
    general = eqx.nn.ConvTranspose(1, 1, 1, 3, 2, 1, 0, key=key)(x)
    special = eqx.nn.ConvTranspose1d(1, 1, 3, 2, 1, 0, key=key)(x)
    return float(special.shape[-1] - general.shape[-1])


@family.known_difference(
    name="pool-use-ceil",
    layer="MaxPool(use_ceil=True)",
    quantity=RAISES,
    what="With `use_ceil` the layer adds a whole stride of padding, and then "
    "rejects the sum if it exceeds the kernel size. The error is `Paddings "
    "should be less than the size of the kernel`.",
    measured=1.0,
    origin="1",
    related=("equinox #175", "equinox #176"),
    ours="The layer table computes the padding itself where this would raise.",
)
def pool_use_ceil() -> float:
    """Returns 1 if a pooling layer that rounds its output size up raises.

    PyTorch accepts a kernel of 2 with a stride of 2 and a padding of 1.
    """
    pool = eqx.nn.MaxPool1d(2, stride=2, padding=1, use_ceil=True)
    try:
        pool(jnp.arange(5.0)[None])
    except RuntimeError:  # "Paddings should be less than ... the kernel."
        return 1.0
    return 0.0


@family.known_difference(
    name="avg-pool-ceil-count",
    layer="AvgPool1d(use_ceil=True)",
    quantity="mean of a window of ones",
    what="The layer divides by the size of the window, also if `use_ceil` "
    "makes the window longer than the padded input. PyTorch divides by the "
    "number of entries in the padded input.",
    expected=1.0,
    measured=2 / 3,
    origin="2 / 3",
    ours="The definition follows PyTorch. The layer table divides by the same "
    "layer's result for ones.",
)
def avg_pool_ceil_count() -> float:
    """Returns the mean of a window of size 3 with 2 entries, which are 1."""
    pool = eqx.nn.AvgPool1d(3, stride=2, use_ceil=True)
    return float(pool(jnp.ones((1, 4)))[0, 1])


@family.known_difference(
    name="adaptive-pool-windows",
    layer="AdaptiveAvgPool1d",
    quantity="mean of the second of three windows over 0 to 6",
    what="If the target size does not divide the input size, the windows are "
    "adjacent blocks of two sizes, while those of PyTorch overlap. Over "
    "0, ..., 6 the second of three windows holds 3 and 4 instead of 2, 3, "
    "and 4.",
    expected=3.0,
    measured=3.5,
    origin="(3 + 4) / 2",
    upstream="equinox #641",
    ours="The definition has these blocks in every backend.",
)
def adaptive_pool_windows() -> float:
    """Returns the mean of the second of three windows over 0 to 6.

    The windows of PyTorch overlap. They are [0, 2], [2, 4], and [4, 6].
    """
    pool = eqx.nn.AdaptiveAvgPool1d(3)
    return float(pool(jnp.arange(7.0)[None])[0, 1])


@family.known_difference(
    name="adaptive-pool-larger",
    layer="AdaptiveAvgPool1d",
    quantity=RAISES,
    what="A target size above the input size raises `ZeroDivisionError: "
    "integer modulo by zero`. PyTorch repeats elements.",
    measured=1.0,
    origin="1",
    ours="The layer table draws target sizes up to the input size.",
)
def adaptive_pool_larger() -> float:
    """Returns 1 if a target size above the input size raises an error."""
    pool = eqx.nn.AdaptiveAvgPool1d(8)
    try:
        pool(jnp.arange(7.0)[None])
    except ZeroDivisionError:
        return 1.0
    return 0.0
