"""Spectral and weight normalization, which reparametrize a weight."""

import dataclasses
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from common.layers._convolution import conv, conv_variables
from common.layers._initial import normal, ones
from common.layers._layer import Layer, extent
from common.layers._linear import linear, linear_variables
from common.protocol import Arrays, Shaped, Variable


def spectral_norm_variables(
    weight: Variable, weight_name: str = "weight"
) -> dict[str, Variable]:
    """Returns the singular-vector estimates u (out,) and v (in * kernel,)."""
    out, *rest = weight.shape

    return {
        f"{weight_name}_u": Variable((out,), normal, trainable=False),
        f"{weight_name}_v": Variable(
            (math.prod(rest),), normal, trainable=False
        ),
    }


def power_iteration(
    weight: Float[Array, "O I"],
    u: Float[Array, " O"],
    v: Float[Array, " I"],
    *,
    eps: float = 1e-12,
) -> tuple[Float[Array, " O"], Float[Array, " I"]]:
    """Takes a step of the power iteration for the largest singular value.

    Computes `u = weight v / |weight v|`, then `v = weight.T u / |weight.T u|`.
    """

    def normalize(t):
        return t / jnp.maximum(eps, jnp.sqrt(jnp.sum(t * t)))

    u = normalize(weight @ v)
    return u, normalize(weight.T @ u)


def spectral_norm(
    weight: Float[Array, "O *I"],
    u: Float[Array, " O"],
    v: Float[Array, " I2"],
    *,
    training: bool,
    num_power_iterations: int = 1,
    eps: float = 1e-12,
) -> tuple[Float[Array, "O *I"], Float[Array, " O"], Float[Array, " I2"]]:
    """Computes `weight / (u.T weight v)`, with singular vectors u and v.

    The axes of the weight after the first are flattened. In training, (u, v)
    are first updated by power iterations, through which no gradient flows.

    Returns:
        The normalized weight and the updated (u, v).

    References:
        Miyato et al., "Spectral Normalization for Generative Adversarial
        Networks", 2018, arXiv:1802.05957.
    """
    matrix = weight.reshape(weight.shape[0], -1)
    if training:
        for _ in range(num_power_iterations):
            u, v = power_iteration(lax.stop_gradient(matrix), u, v, eps=eps)
    return weight / (u @ matrix @ v), u, v


def spectral_linear(
    x: Float[Array, "*B I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, " O"],
    weight_u: Float[Array, " O"],
    weight_v: Float[Array, " I"],
    *,
    training: bool,
) -> tuple[Float[Array, "*B O"], Arrays]:
    """Applies a Linear layer whose weight is spectrally normalized.

    The normalized weight is cast to the dtype of `x`.
    """
    weight, u, v = spectral_norm(weight, weight_u, weight_v, training=training)
    return linear(x, weight.astype(x.dtype), bias), {
        "weight_u": u,
        "weight_v": v,
    }


def settle(weight: Array, u: Array, v: Array, *, iterations: int = 15):
    """Runs the power iterations that `eqx.nn.SpectralNorm` starts with."""
    matrix = weight.reshape(weight.shape[0], -1)
    for _ in range(iterations):
        u, v = power_iteration(matrix, u, v)
    return u, v


def weight_norm_variables(
    weight: Variable, *, axis: int | None = 0
) -> dict[str, Variable]:
    """Returns the direction v and the length g.

    v has the shape of the weight, and g has size 1 on all axes but `axis`.
    """
    shape = tuple(
        size if i == axis else 1 for i, size in enumerate(weight.shape)
    )
    return {
        "weight_v": weight._replace(wide=True),
        "weight_g": Variable(shape, ones, wide=True),
    }


def weight_norm(
    weight_v: Float[Array, "*W"],
    weight_g: Float[Array, "*G"],
    *,
    axis: int | None = 0,
) -> Float[Array, "*W"]:
    """Computes `g * v / |v|`, with the norm over all axes but `axis`.

    Args:
        weight_v: the direction v.
        weight_g: the length g, which broadcasts with the direction.
        axis: the axis that has one length per entry; 0 is the output axis.
            One length for the whole weight if `None`.

    References:
        Salimans and Kingma, "Weight Normalization", 2016, arXiv:1602.07868;
        `torch.nn.utils.weight_norm`.
    """
    axes = tuple(i for i in range(weight_v.ndim) if i != axis)
    norm = jnp.sqrt(jnp.sum(weight_v * weight_v, axes, keepdims=True))
    return weight_g * weight_v / norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wrapped(Layer):
    """The base of the rows that reparametrize a weight.

    The weight is that of a convolution if there is a `kernel_size`, otherwise
    that of a Linear layer.
    """

    family = "normalization"

    in_features: int = 4
    out_features: int = 3
    kernel_size: tuple[int, ...] = ()
    use_bias: bool = True
    size: int = extent(3)

    @property
    def inputs(self):
        size = (self.size,) * len(self.kernel_size)
        return (Shaped((*size, self.in_features)),)

    def wrapped(self) -> dict[str, Variable]:
        """Returns the variables of the wrapped layer."""
        sizes = self.in_features, self.out_features
        if self.kernel_size:
            return conv_variables(*sizes, self.kernel_size, bias=self.use_bias)
        return linear_variables(*sizes, bias=self.use_bias)

    def apply(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Calls the wrapped layer."""
        layer = conv if self.kernel_size else linear
        return layer(x, weight.astype(x.dtype), bias)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectralNorm(_Wrapped):
    """Divides a layer's weight by an estimate of its spectral norm."""

    name = "spectral_norm"

    num_power_iterations: int = 1
    eps: float = 1e-12

    def variables(self):
        variables = self.wrapped()
        weight = variables["weight"]._replace(wide=True)
        return variables | {
            "weight": weight,
            **spectral_norm_variables(weight),
        }

    def forward(self, params, buffers, x, *, key, training):
        weight, u, v = spectral_norm(
            params["weight"],
            buffers["weight_u"],
            buffers["weight_v"],
            training=training,
            num_power_iterations=self.num_power_iterations,
            eps=self.eps,
        )
        y = self.apply(x, weight, params.get("bias"))
        return y, {"weight_u": u, "weight_v": v}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightNorm(_Wrapped):
    """Computes a layer's weight from a direction and a length."""

    name = "weight_norm"

    axis: int | None = 0

    def variables(self):
        variables = self.wrapped()
        weight = variables.pop("weight")
        return variables | weight_norm_variables(weight, axis=self.axis)

    def forward(self, params, buffers, x, *, key, training):
        weight = weight_norm(
            params["weight_v"], params["weight_g"], axis=self.axis
        )
        return self.apply(x, weight, params.get("bias")), {}
