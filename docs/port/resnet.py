"""ResNet-18 in inference mode, written channels last and channels first."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


def weights(seed=0):
    """Draws the kernels (out, in, h, w) and the norms of the network."""
    rng = np.random.default_rng(seed)

    def unit(inputs, outputs, size):
        scale = (inputs * size * size) ** -0.5
        return {
            "kernel": scale * rng.normal(size=(outputs, inputs, size, size)),
            "gain": rng.uniform(0.5, 1.5, size=outputs),
            "shift": 0.1 * rng.normal(size=outputs),
            "mean": 0.1 * rng.normal(size=outputs),
            "var": rng.uniform(0.5, 1.5, size=outputs),
        }

    layers, inputs = {"stem": unit(3, 64, 7)}, 64
    for stage, (outputs, stride) in enumerate(STAGES):
        for block in range(2):
            name = f"{stage}.{block}"
            layers[f"{name}.first"] = unit(inputs, outputs, 3)
            layers[f"{name}.second"] = unit(outputs, outputs, 3)
            if stride != 1 and block == 0:
                layers[f"{name}.skip"] = unit(inputs, outputs, 1)
            inputs = outputs
    return {**layers, "head": rng.normal(size=(1000, 512)) / 512**0.5}


def _network(unit, pool, mean, layers, x):
    """Applies the units in the order that both versions share."""
    x = jax.nn.relu(unit(layers["stem"], x, 2))
    x = pool(x)
    for stage, (_, stride) in enumerate(STAGES):
        for block in range(2):
            name, step = f"{stage}.{block}", stride if block == 0 else 1
            y = jax.nn.relu(unit(layers[f"{name}.first"], x, step))
            y = unit(layers[f"{name}.second"], y, 1)
            if f"{name}.skip" in layers:
                x = unit(layers[f"{name}.skip"], x, step)
            x = jax.nn.relu(x + y)
    return mean(x) @ layers["head"].T


def last(layers, images, eps=1e-5):
    """Computes the logits channels last, with the norm as it is defined."""

    def unit(layer, x, stride):
        kernel = layer["kernel"].transpose(2, 3, 1, 0)
        pad = (kernel.shape[0] - 1) // 2
        x = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = (x - layer["mean"]) / jnp.sqrt(layer["var"] + eps)
        return x * layer["gain"] + layer["shift"]

    def pool(x):
        window = ((1, 3, 3, 1), (1, 2, 2, 1))
        pads = [(0, 0), (1, 1), (1, 1), (0, 0)]
        return lax.reduce_window(x, -jnp.inf, lax.max, *window, pads)

    return _network(unit, pool, lambda x: x.mean((1, 2)), layers, images)


def first(layers, images, eps=1e-5):
    """Computes them channels first, with each norm as a gain and a shift."""

    def unit(layer, x, stride):
        pad = (layer["kernel"].shape[-1] - 1) // 2
        x = lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), [(pad, pad)] * 2
        )
        gain = layer["gain"] * lax.rsqrt(layer["var"] + eps)
        shift = layer["shift"] - layer["mean"] * gain
        return x * gain[:, None, None] + shift[:, None, None]

    def pool(x):
        window = ((1, 1, 3, 3), (1, 1, 2, 2))
        pads = [(0, 0), (0, 0), (1, 1), (1, 1)]
        return lax.reduce_window(x, -jnp.inf, lax.max, *window, pads)

    images = jnp.moveaxis(images, -1, 1)
    return _network(unit, pool, lambda x: x.mean((2, 3)), layers, images)
