"""Definitions of the activation functions."""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from common.layers._initial import constant
from common.layers._layer import Layer, extent
from common.protocol import Shaped, Variable


def identity(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Returns `x`."""
    return x


# --- piecewise linear functions ----------------------------------------------


def relu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `max(x, 0)`. NaN stays NaN. The gradient at 0 and NaN is 0."""
    other = jnp.where(x <= 0, jnp.zeros_like(x), lax.stop_gradient(x))
    return jnp.where(x > 0, x, other)


def relu6(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `min(max(x, 0), 6)`. The gradient at 0 and at 6 is 0."""
    return jnp.where(x >= 6, jnp.full_like(x, 6), relu(x))


def leaky_relu(
    x: Float[Array, "*S"], negative_slope: float = 0.01
) -> Float[Array, "*S"]:
    """Computes `x` if it is positive, otherwise `negative_slope * x`."""
    return jnp.where(x >= 0, x, negative_slope * x)


def hard_tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `x` clipped to [-1, 1]."""
    x = jnp.where(x > 1, jnp.ones_like(x), x)
    return jnp.where(x < -1, -jnp.ones_like(x), x)


def hard_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `relu6(x + 3) / 6`."""
    return relu6(x + 3) / 6


def hard_silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `x * hard_sigmoid(x)`; also called hard-swish.

    References:
        Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244.
    """
    return x * hard_sigmoid(x)


# --- sigmoids ----------------------------------------------------------------


def sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `1 / (1 + exp(-x))`."""
    # The exponent is never positive, so it cannot overflow.
    small = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1, small) / (1 + small)


def log_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `log(sigmoid(x))`."""
    return -softplus(-x)


def silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `x * sigmoid(x)`; also called swish.

    References:
        Ramachandran et al., "Searching for Activation Functions", 2017,
        arXiv:1710.05941.
    """
    return x * sigmoid(x)


def softplus(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `log(1 + exp(x))`."""
    return jnp.where(x >= 0, x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def soft_sign(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `x / (1 + |x|)`."""
    return x / (1 + jnp.abs(x))


def tanh(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`."""
    return jnp.tanh(x)


def glu(x: Float[Array, "*S I"]) -> Float[Array, "*S I//2"]:
    """Computes `a * sigmoid(b)`, where a and b are halves of the last axis.

    References:
        Dauphin et al., "Language Modeling with Gated Convolutional Networks",
        2016, arXiv:1612.08083.
    """
    a, b = jnp.split(x, 2, axis=-1)
    return a * sigmoid(b)


# --- exponentials and the normal distribution --------------------------------


def elu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """Computes `x` if it is positive, otherwise `alpha * (exp(x) - 1)`.

    References:
        Clevert et al., "Fast and Accurate Deep Network Learning by Exponential
        Linear Units", 2015, arXiv:1511.07289.
    """
    # Without the bound on the exponent, the gradient of large x is NaN.
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


def celu(x: Float[Array, "*S"], alpha: float = 1.0) -> Float[Array, "*S"]:
    """Computes `alpha * elu(x / alpha)`, which has slope 1 at 0.

    References:
        Barron, "Continuously Differentiable Exponential Linear Units", 2017,
        arXiv:1704.07483.
    """
    return alpha * elu(x / alpha)


def selu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `scale * elu(x, alpha)`, which preserves mean 0, variance 1.

    References:
        Klambauer et al., "Self-Normalizing Neural Networks", 2017,
        arXiv:1706.02515.
    """
    alpha = 1.6732632423543772848170429916717
    scale = 1.0507009873554804934193349852946
    return scale * elu(x, alpha)


def gelu(
    x: Float[Array, "*S"], approximate: bool = True
) -> Float[Array, "*S"]:
    """Computes `x * P(N(0, 1) <= x)`, with tanh in place of erf by default.

    References:
        Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016,
        arXiv:1606.08415.
    """
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return x * (1 + jnp.tanh(inner)) / 2
    return x * (1 + lax.erf(x / math.sqrt(2))) / 2


# --- along the last axis -----------------------------------------------------


def logsumexp(x: Float[Array, "*S I"]) -> Float[Array, "*S"]:
    """Computes `log(sum(exp(x)))` along the last axis.

    It is infinite if the largest element is.
    """
    largest = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    # The difference of two infinities would be NaN.
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jnp.sum(jnp.exp(x - largest), axis=-1)
    return largest[..., 0] + jnp.log(total)


def log_softmax(x: Float[Array, "*S I"]) -> Float[Array, "*S I"]:
    """Computes `log(softmax(x))` along the last axis."""
    # The shift keeps the digits of differences, and makes an infinite maximum
    # NaN.
    x = x - lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    return x - logsumexp(x)[..., None]


def softmax(x: Float[Array, "*S I"]) -> Float[Array, "*S I"]:
    """Computes `exp(x) / sum(exp(x))` along the last axis."""
    largest = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    powers = jnp.exp(x - largest)
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


def standardize(
    x: Float[Array, "*S I"], eps: float = 1e-5
) -> Float[Array, "*S I"]:
    """Computes `(x - mean) / sqrt(variance + eps)` along the last axis."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(variance + eps)


def one_hot(
    indices: Int[Array, "*S"], num_classes: int
) -> Int[Array, "*S {num_classes}"]:
    """Sets 1 at each index and 0 elsewhere, along a new last axis."""
    hits = indices[..., None] == jnp.arange(num_classes)
    return hits.astype(jnp.int32)


ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "celu": celu,
    "elu": elu,
    "gelu": gelu,
    "glu": glu,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "hard_tanh": hard_tanh,
    "identity": identity,
    "leaky_relu": leaky_relu,
    "log_sigmoid": log_sigmoid,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "one_hot": one_hot,
    "relu": relu,
    "relu6": relu6,
    "selu": selu,
    "sigmoid": sigmoid,
    "silu": silu,
    "soft_sign": soft_sign,
    "softmax": softmax,
    "softplus": softplus,
    "standardize": standardize,
    "swish": silu,
    "tanh": tanh,
}
"""The definitions of all activation functions, by name."""

NUM_CLASSES = 5

# The data of functions that clip are spread by these factors, so that some of
# them are clipped. Other functions get N(0, 1): in float32 the gradient of the
# approximate `gelu` loses digits when x is large.
CLIPPED = {"relu6": 4, "hard_sigmoid": 3, "hard_silu": 3, "hard_swish": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    """Applies an activation function that has no variables.

    Functions that reduce an axis reduce the last one.
    """

    name = "activation"
    family = "activation"

    function: str = "gelu"
    approximate: bool = True  # gelu only
    size: tuple[int, ...] = extent((2, 6))

    @property
    def inputs(self):
        kind = "int" if self.function == "one_hot" else "float"
        return (Shaped(self.size, kind),)

    def draw(self, rng: np.random.Generator, batch_size: int):
        if self.function == "one_hot":
            shape = (batch_size, *self.size)
            return (rng.integers(0, NUM_CLASSES, shape, np.int32),)
        (x,) = super().draw(rng, batch_size)
        return (CLIPPED.get(self.function, 1) * x,)

    def forward(self, params, buffers, x, *, key, training):
        if self.function == "one_hot":
            return one_hot(x, NUM_CLASSES), {}
        if self.function == "gelu":
            return gelu(x, self.approximate), {}
        return ACTIVATIONS[self.function](x), {}

    def offset(self, x):
        if self.function != "standardize":
            return 0.0
        ratio = np.mean(x, -1) / np.sqrt(np.var(x, -1) + 1e-5)
        return float(np.max(np.abs(ratio), initial=0.0))


# --- functions with a parameter ----------------------------------------------


def prelu(
    x: Float[Array, "*S C"], negative_slope: Float[Array, "..."]
) -> Float[Array, "*S C"]:
    """Computes `x` if it is positive, otherwise `negative_slope * x`.

    Args:
        x: a batch, channels last.
        negative_slope: one slope for all channels, (), or one each, (C,).

    References:
        He et al., "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.
    """
    return jnp.where(x >= 0, x, negative_slope * x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PReLU(Layer):
    """Applies a leaky ReLU with trainable slopes.

    There is one slope for all channels, or one per channel.
    """

    name = "prelu"
    family = "activation"

    features: int | None = None  # None for one slope for all channels
    num_spatial_dims: int = 1

    @property
    def inputs(self):
        spatial = (2,) * self.num_spatial_dims
        return (Shaped((*spatial, self.features or 3)),)

    def variables(self):
        shape = () if self.features is None else (self.features,)
        init = constant(0.25, jnp.float32)
        return {"negative_slope": Variable(shape, init)}

    def forward(self, params, buffers, x, *, key, training):
        return prelu(x, **params), {}
