"""ResNet-50 in Equinox, to measure what `align` costs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class ConvNorm(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, inputs, outputs, size, stride=1, *, key):
        self.conv = eqx.nn.Conv2d(
            inputs,
            outputs,
            size,
            stride,
            padding=size // 2,
            use_bias=False,
            key=key,
        )
        self.norm = eqx.nn.BatchNorm(outputs, "batch", mode="ema")

    def __call__(self, x, state):
        return self.norm(self.conv(x), state)


class Bottleneck(eqx.Module):
    layers: list[ConvNorm]
    shortcut: ConvNorm | None

    def __init__(self, inputs, width, stride, *, key):
        keys = jr.split(key, 4)
        self.layers = [
            ConvNorm(inputs, width, 1, key=keys[0]),
            ConvNorm(width, width, 3, stride, key=keys[1]),
            ConvNorm(width, 4 * width, 1, key=keys[2]),
        ]
        self.shortcut = None
        if inputs != 4 * width:
            self.shortcut = ConvNorm(inputs, 4 * width, 1, stride, key=keys[3])

    def __call__(self, x, state):
        y = x
        for i, layer in enumerate(self.layers):
            y, state = layer(y, state)
            if i < 2:
                y = jax.nn.relu(y)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return jax.nn.relu(x + y), state


class ResNet50(eqx.Module):
    """Takes one image, channels first."""

    stem: ConvNorm
    blocks: list[Bottleneck]
    pool: eqx.nn.MaxPool2d
    head: eqx.nn.Linear

    def __init__(self, *, key):
        stem_key, head_key, key = jr.split(key, 3)
        self.stem = ConvNorm(3, 64, 7, 2, key=stem_key)
        self.pool = eqx.nn.MaxPool2d(3, 2, padding=1)
        self.blocks, inputs = [], 64
        for stage, (width, depth) in enumerate(STAGES):
            for i in range(depth):
                key, block_key = jr.split(key)
                stride = 2 if stage and not i else 1
                block = Bottleneck(inputs, width, stride, key=block_key)
                self.blocks.append(block)
                inputs = 4 * width
        self.head = eqx.nn.Linear(inputs, 1000, key=head_key)

    def __call__(self, image, state):
        x, state = self.stem(image, state)
        x = self.pool(jax.nn.relu(x))
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(jnp.mean(x, (1, 2))), state
