"""What each layer means: its variables, and its function in plain JAX.

These functions are what specs compose and what both libraries are judged by,
so they use `jax.numpy` and `jax.lax` primitives only and are themselves
checked against NumPy in float64. Arrays are canonical: parameters in
PyTorch's axis order, batches channels-last.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from common.protocol import Arrays, Variable

BatchNormDialect = Literal["ema", "batch", "standard"]
BATCH_NORM_DIALECTS: tuple[str, ...] = get_args(BatchNormDialect)


def named(layer: str, variables: dict[str, Variable]) -> dict[str, Variable]:
    """Prefixes a layer's variables with its dotted path."""
    return {f"{layer}.{leaf}": v for leaf, v in variables.items()}


def within(layer: str, arrays: Arrays) -> Arrays:
    """Picks one layer's arrays, by leaf name."""
    prefix = f"{layer}."
    return {
        name.removeprefix(prefix): x
        for name, x in arrays.items()
        if name.startswith(prefix)
    }


def stateful(
    layer: Callable[..., tuple[Array, Arrays]],
    name: str,
    x: Array,
    params: Arrays,
    buffers: Arrays,
    **options: Any,
) -> tuple[Array, Arrays]:
    """Calls a layer that has buffers on its own arrays.

    Returns:
        The layer's output and its updated buffers, by canonical name.
    """
    y, new = layer(
        x, **within(name, params), **within(name, buffers), **options
    )
    return y, {f"{name}.{leaf}": buffer for leaf, buffer in new.items()}


def _uniform(bound: float):
    def init(key, shape):
        return jr.uniform(key, shape, jnp.float32, -bound, bound)

    return init


def _constant(value, dtype):
    return lambda key, shape: jnp.full(shape, value, dtype)


_zeros = _constant(0, jnp.float32)
_ones = _constant(1, jnp.float32)


# --- linear -----------------------------------------------------------------


def linear_variables(
    in_features: int, out_features: int, *, bias: bool = True
) -> dict[str, Variable]:
    """Weight (out, in) and bias (out,), both U(-1/sqrt(in), 1/sqrt(in)).

    Reference: the initialisation of `torch.nn.Linear` and `eqx.nn.Linear`.
    """
    init = _uniform(1 / math.sqrt(in_features))
    variables = {"weight": Variable((out_features, in_features), init)}
    if bias:
        variables["bias"] = Variable((out_features,), init)
    return variables


def linear(
    x: Float[Array, "*B I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, " O"] | None = None,
) -> Float[Array, "*B O"]:
    """Computes `x @ weight.T + bias`."""
    y = x @ weight.T
    return y if bias is None else y + bias


# --- convolution ------------------------------------------------------------


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
    init = _uniform(1 / math.sqrt(in_channels * math.prod(kernel_size)))
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


# --- activation and pooling -------------------------------------------------


def relu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Computes `max(x, 0)`, with gradient 0 at 0; NaN stays NaN."""
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def max_pool2d(
    x: Float[Array, "B H W C"], window: int
) -> Float[Array, "B H2 W2 C"]:
    """Takes the maximum over disjoint `window` x `window` squares."""
    size = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")


def flatten(x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
    """Flattens each example in PyTorch's order: C, then H, then W."""
    x = jnp.transpose(x, (0, 3, 1, 2))  # (B, C, H, W)
    return x.reshape(x.shape[0], -1)


# --- regularisation ---------------------------------------------------------


def dropout(
    x: Float[Array, "B *S"], key: PRNGKeyArray, p: float
) -> Float[Array, "B *S"]:
    """Zeroes each element with probability `p` and scales the rest.

    One mask is drawn for the whole batch, in the axis order of `x`.

    Reference: Srivastava et al., "Dropout", JMLR 15 (2014).
    """
    keep = jr.bernoulli(key, 1 - p, x.shape)
    return jnp.where(keep, x / (1 - p), jnp.zeros_like(x))


# --- batch normalisation ----------------------------------------------------


def batch_norm_variables(
    features: int, dialect: BatchNormDialect
) -> dict[str, Variable]:
    """Weight, bias and the running statistics that the dialect keeps."""
    variables = {
        "weight": Variable((features,), _ones),
        "bias": Variable((features,), _zeros),
        "running_mean": Variable((features,), _zeros, trainable=False),
        "running_var": Variable(
            (features,), _zeros if dialect == "ema" else _ones, trainable=False
        ),
    }
    if dialect == "ema":
        variables["first_time"] = Variable(
            (), _constant(True, jnp.bool_), trainable=False
        )
    if dialect == "batch":
        variables["num_batches_tracked"] = Variable(
            (), _constant(0, jnp.int32), trainable=False
        )
    return variables


def batch_norm(
    x: Float[Array, "B *S C"],
    weight: Float[Array, " C"],
    bias: Float[Array, " C"],
    running_mean: Float[Array, " C"],
    running_var: Float[Array, " C"],
    first_time: Bool[Array, ""] | None = None,
    num_batches_tracked: Int[Array, ""] | None = None,
    *,
    dialect: BatchNormDialect,
    momentum: float,
    eps: float,
    training: bool,
) -> tuple[Float[Array, "B *S C"], Arrays]:
    """Normalises each channel over the batch, in one of three dialects.

    With batch statistics (m, v), v biased, and `a = momentum`:

    - `"standard"`: training normalises by (m, v) and stores
      `a * running + (1 - a) * (m, v)`; inference uses what is stored.
    - `"batch"`: the same, but inference divides both stored values by
      `1 - a**num_batches_tracked`.
    - `"ema"`: training *normalises by the stored values*, updated first; the
      first batch is stored as it is.

    Returns:
        The normalised batch and the updated buffers, by leaf name.

    Reference: Ioffe and Szegedy, "Batch Normalization", 2015,
        arXiv:1502.03167. `"standard"` is `flax.nnx.BatchNorm`; `"batch"` and
        `"ema"` are the modes of `equinox.nn.BatchNorm` (equinox #659).
    """
    if (dialect == "ema") != (first_time is not None) or (
        dialect == "batch"
    ) != (num_batches_tracked is not None):
        raise TypeError(
            f"batch_norm buffers: got others than those of {dialect!r}, "
            "expected those of `batch_norm_variables`. Pass them."
        )
    mean, var = running_mean, running_var
    buffers = {}
    if training:
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        var = jnp.mean(jnp.square(x - mean), axes)
        running_mean = (1 - momentum) * mean + momentum * running_mean
        running_var = (1 - momentum) * var + momentum * running_var
    if first_time is not None:
        if training:
            mean = running_mean = jnp.where(first_time, mean, running_mean)
            var = running_var = jnp.where(first_time, var, running_var)
            first_time = jnp.zeros_like(first_time)
        buffers["first_time"] = first_time
    if num_batches_tracked is not None:
        n = num_batches_tracked
        if not training:
            debias = 1 - jnp.asarray(momentum, running_var.dtype) ** n
            debias = jnp.where(n == 0, 1, debias)
            mean, var = mean / debias, var / debias
        buffers["num_batches_tracked"] = n + 1 if training else n
    buffers["running_mean"] = running_mean
    buffers["running_var"] = running_var
    return (x - mean) / jnp.sqrt(var + eps) * weight + bias, buffers


# --- spectral normalisation -------------------------------------------------


def spectral_norm_variables(
    weight: Variable, weight_name: str = "weight"
) -> dict[str, Variable]:
    """The singular-vector estimates u (out,) and v (in * kernel,)."""
    out, *rest = weight.shape

    def normal(key, shape):
        return jr.normal(key, shape, jnp.float32)

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
    """Improves (u, v) towards the leading singular vectors of `weight`."""

    def normalise(t):
        return t / jnp.maximum(eps, jnp.sqrt(jnp.sum(t * t)))

    u = normalise(weight @ v)
    return u, normalise(weight.T @ u)


def spectral_norm(
    weight: Float[Array, "O *I"],
    u: Float[Array, " O"],
    v: Float[Array, " I2"],
    *,
    training: bool,
    eps: float = 1e-12,
) -> tuple[Float[Array, "O *I"], Float[Array, " O"], Float[Array, " I2"]]:
    """Divides a weight by an estimate of its largest singular value.

    Training first improves (u, v) by one power iteration; no gradient flows
    through the iteration. The stored weight itself never changes.

    Returns:
        The normalised weight and the updated (u, v).

    Reference: Miyato et al., "Spectral Normalization for Generative
        Adversarial Networks", 2018, arXiv:1802.05957.
    """
    matrix = weight.reshape(weight.shape[0], -1)
    if training:
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
    """Applies a Linear whose weight is spectrally normalised."""
    weight, u, v = spectral_norm(weight, weight_u, weight_v, training=training)
    return linear(x, weight, bias), {"weight_u": u, "weight_v": v}


def settle(weight: Array, u: Array, v: Array, *, iterations: int = 15):
    """Runs the power iterations that Equinox runs at construction."""
    matrix = weight.reshape(weight.shape[0], -1)
    for _ in range(iterations):
        u, v = power_iteration(matrix, u, v)
    return u, v
