"""Images: one example at a time against batched, axes in two orders."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    linear_of,
    normal,
)


def kernel(weight):
    """Turns a kernel (O, I, *k) into (*k, I, O)."""
    return jnp.moveaxis(weight, (0, 1), (-1, -2))


def conv_of(layer, **options):
    """Returns nnx's convolution with the weights of Equinox's."""
    options = {
        "strides": layer.stride,
        "padding": layer.padding,
        "feature_group_count": layer.groups,
        "kernel_init": given(kernel(layer.weight)),
        "bias_init": given(layer.bias.reshape(-1)),
        **options,
    }
    return nnx.Conv(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        rngs=RNGS,
        **options,
    )


# --- a small convolutional network ------------------------------------------


class LeftCNN(eqx.Module):
    conv: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    head: eqx.nn.Linear

    def __init__(self):
        self.conv = eqx.nn.Conv2d(2, 4, 3, stride=2, padding=1, key=KEY)
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.head = eqx.nn.Linear(16, 5, key=KEY)

    def __call__(self, x):
        x = jax.nn.relu(self.conv(x))
        x = self.pool(x).reshape(-1)
        return self.head(x)  # lacks: cnn_bias


class RightCNN(nnx.Module):
    def __init__(self, left, fault):
        options = {}
        if fault == "cnn_padding":
            options = {"padding": "SAME"}
        if fault == "cnn_flipped":
            flipped = left.conv.weight[:, :, ::-1, ::-1]
            options = {"kernel_init": given(kernel(flipped))}
        self.conv = conv_of(left.conv, **options)
        self.head = linear_of(left.head, use_bias=fault != "cnn_bias")
        self.fault = fault

    def __call__(self, x):
        x = self.conv(x)  # fault: cnn_padding, cnn_flipped
        activation = nnx.elu if self.fault == "cnn_activation" else nnx.relu
        x = activation(x)  # fault: cnn_activation
        pool = nnx.avg_pool if self.fault == "cnn_pool" else nnx.max_pool
        x = pool(x, (2, 2), strides=(2, 2))  # fault: cnn_pool
        if self.fault != "cnn_flatten":
            x = x.transpose(0, 3, 1, 2)
        x = x.reshape(x.shape[0], -1)  # fault: cnn_flatten
        return self.head(x)  # fault: cnn_bias  # consumer: cnn_flatten


def cnn(rng, fault=""):
    left = filled(rng, LeftCNN())
    x = normal(rng, 3, 2, 8, 8)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        (left, x),
        (RightCNN(left, fault), x.transpose(0, 2, 3, 1)),
    )


# --- a separable convolution, its 1x1 part as a linear layer ----------------


class LeftSeparable(eqx.Module):
    depthwise: eqx.nn.Conv2d
    pointwise: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self):
        self.depthwise = eqx.nn.Conv2d(4, 4, 3, padding=1, groups=4, key=KEY)
        self.pointwise = eqx.nn.Conv2d(4, 4, 1, key=KEY)
        self.head = eqx.nn.Linear(4, 3, key=KEY)

    def __call__(self, x):
        x = self.depthwise(x)
        x = jax.nn.silu(self.pointwise(x))
        return self.head(jnp.mean(x, (1, 2)))


class RightSeparable(nnx.Module):
    def __init__(self, left, fault):
        options = {
            "separable_stride": {"strides": 2},
            "separable_dilation": {
                "kernel_dilation": 2,
                "padding": ((2, 2), (2, 2)),
            },
        }
        self.depthwise = conv_of(left.depthwise, **options.get(fault, {}))
        weight = left.pointwise.weight[:, :, 0, 0]
        if fault == "separable_transposed":
            weight = weight.T
        self.pointwise = nnx.Param(weight)
        self.bias = nnx.Param(left.pointwise.bias.reshape(-1))
        self.head = linear_of(left.head)
        self.fault = fault

    def __call__(self, x):
        x = self.depthwise(x)  # fault: separable_stride, separable_dilation
        x = x @ self.pointwise[...].T  # fault: separable_transposed
        x = x + self.bias[...]
        if self.fault == "separable_bfloat16":
            # fault: separable_bfloat16
            x = x.astype("bfloat16").astype(x.dtype)
        slope = 1.702 if self.fault == "separable_silu" else 1.0
        x = x / (1 + jnp.exp(-slope * x))  # fault: separable_silu
        axes = (0, 1) if self.fault == "separable_axis" else (1, 2)
        if self.fault == "separable_max":
            x = x.max(axes)  # fault: separable_max
        else:
            x = x.sum(axes)  # fault: separable_axis
            x = x / 16  # fault: separable_axis
        return self.head(x)


def separable(rng, fault=""):
    left = filled(rng, LeftSeparable())
    x = normal(rng, 4, 4, 4, 4)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        (left, x),
        (RightSeparable(left, fault), x.transpose(0, 2, 3, 1)),
    )


# --- patches: a strided convolution against a linear layer ------------------


class LeftPatches(eqx.Module):
    conv: eqx.nn.Conv2d
    token: jax.Array
    positions: jax.Array

    def __init__(self):
        self.conv = eqx.nn.Conv2d(2, 6, 2, stride=2, key=KEY)
        self.token = jnp.zeros((1, 6), "float32")
        self.positions = jnp.zeros((5, 6), "float32")

    def __call__(self, x):
        x = self.conv(x).reshape(6, -1).T
        return jnp.concatenate([self.token, x]) + self.positions


def right_patches(weights, x, fault):
    batch = x.shape[0]
    x = x.reshape(batch, 2, 2, 2, 2, 2)  # B gh ph gw pw C
    order = (0, 3, 1, 2, 4, 5) if fault == "patch_grid" else (0, 1, 3, 2, 4, 5)
    # The order within a patch is wrong against that of the weights.
    # fault: patch_grid, patch_order
    x = x.transpose(order).reshape(batch, 4, 8)
    weight = weights.conv.weight
    if fault != "patch_order":
        weight = weight.transpose(0, 2, 3, 1)
    weight = weight.reshape(6, -1)  # fault: patch_order
    x = jnp.einsum("bpi,oi->bpo", x, weight)  # consumer: patch_order
    x = x + weights.conv.bias.reshape(-1)
    token = jnp.broadcast_to(weights.token, (batch, 1, 6))
    if fault == "patch_class_last":
        x = jnp.concatenate([x, token], 1)  # fault: patch_class_last
    else:
        x = jnp.concatenate([token, x], 1)  # consumer: patch_grid
    positions = weights.positions
    if fault == "patch_positions":
        positions = jnp.roll(positions, 1, 0)  # fault: patch_positions
    return x + positions  # consumer: patch_positions


def patches(rng, fault=""):
    left = filled(rng, LeftPatches())
    x = normal(rng, 3, 2, 4, 4)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right_patches, fault=fault),
        (left, x),
        (left, x.transpose(0, 2, 3, 1)),
    )


# --- upsampling -------------------------------------------------------------


class LeftDecoder(eqx.Module):
    transposed: eqx.nn.ConvTranspose2d
    smooth: eqx.nn.Conv2d

    def __init__(self):
        self.transposed = eqx.nn.ConvTranspose2d(4, 3, 3, 2, key=KEY)
        self.smooth = eqx.nn.Conv2d(3, 1, 3, padding=1, key=KEY)

    def __call__(self, x):
        # consumer: up_flipped, up_swapped
        x = jnp.tanh(self.transposed(x))
        x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        return self.smooth(x)


def right_decoder(weights, x, fault):
    interior = (2, 2, 1)
    x = lax.pad(
        x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), interior, interior)
    )
    weight = weights.transposed.weight
    if fault == "up_flipped":
        weight = weight[:, :, ::-1, ::-1]  # fault: up_flipped
    if fault == "up_swapped":
        weight = weight.swapaxes(2, 3)  # fault: up_swapped
    x = convolve(x, weight, 0)  # consumer: up_flipped, up_swapped
    x = jnp.tanh(x + weights.transposed.bias)
    n, c, h, w = x.shape
    if fault == "up_tiled":
        x = jnp.tile(x, (1, 1, 2, 2))  # fault: up_tiled
    else:
        x = x[:, :, :, None, :, None]
        x = jnp.broadcast_to(x, (n, c, h, 2, w, 2))
        x = x.reshape(n, c, 2 * h, 2 * w)
    if fault == "up_valid":
        mode = [(0, 0), (0, 0), (1, 1), (1, 1)]
        x = jnp.pad(x, mode, "edge")  # fault: up_valid
    pad = 0 if fault == "up_valid" else 1
    x = convolve(x, weights.smooth.weight, pad)  # consumer: up_tiled, up_valid
    return x + weights.smooth.bias


def convolve(x, weight, pad):
    return lax.conv_general_dilated(x, weight, (1, 1), ((pad, pad),) * 2)


def decoder(rng, fault=""):
    left = filled(rng, LeftDecoder())
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right_decoder, fault=fault),
        (left, normal(rng, 2, 4, 2, 2)),
    )


PAIRS = (
    Pair(
        cnn,
        (
            "cnn_padding",
            "cnn_flipped",
            "cnn_activation",
            "cnn_pool",
            "cnn_flatten",
            "cnn_bias",
        ),
        rewritten=False,
        leaves={"cnn_flipped": "conv"},
    ),
    Pair(
        separable,
        (
            "separable_stride",
            "separable_dilation",
            "separable_transposed",
            "separable_bfloat16",
            "separable_silu",
            "separable_axis",
            "separable_max",
        ),
    ),
    Pair(
        patches,
        ("patch_grid", "patch_order", "patch_positions", "patch_class_last"),
    ),
    Pair(decoder, ("up_flipped", "up_swapped", "up_tiled", "up_valid")),
)
