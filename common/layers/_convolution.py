"""Convolutions and their transposes."""

import math

from jax import lax
from jaxtyping import Array, Float

from common.layers._initial import uniform
from common.protocol import Variable


def conv_variables(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, ...],
    *,
    bias: bool = True,
) -> dict[str, Variable]:
    """Weight (out, in, *kernel) and bias (out,), U(+-1/sqrt(fan_in)).

    Reference: the initialisation of `torch.nn.Conv2d` and `eqx.nn.Conv2d`.
    """
    init = uniform(1 / math.sqrt(in_channels * math.prod(kernel_size)))
    weight = Variable((out_channels, in_channels, *kernel_size), init)
    variables = {"weight": weight}
    if bias:
        variables["bias"] = Variable((out_channels,), init)
    return variables


def conv2d(
    x: Float[Array, "B H W I"],
    weight: Float[Array, "O I kh kw"],
    bias: Float[Array, " O"] | None = None,
    *,
    padding: int = 0,
) -> Float[Array, "B H2 W2 O"]:
    """Correlates over H and W with stride 1 and zero padding."""
    y = lax.conv_general_dilated(
        x,
        weight,
        window_strides=(1, 1),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    return y if bias is None else y + bias
