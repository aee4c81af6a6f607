"""ResNet-50 in Flax NNX, to measure what `align` costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class Bottleneck(nnx.Module):
    def __init__(self, inputs, width, stride, *, rngs):
        conv = functools.partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.reduce = conv(inputs, width, (1, 1))
        self.bn0 = nnx.BatchNorm(width, rngs=rngs)
        self.spatial = conv(
            width, width, (3, 3), strides=stride, padding=((1, 1), (1, 1))
        )
        self.bn1 = nnx.BatchNorm(width, rngs=rngs)
        self.expand = conv(width, 4 * width, (1, 1))
        self.bn2 = nnx.BatchNorm(4 * width, rngs=rngs)
        self.projection = nnx.data(None)
        if inputs != 4 * width:
            self.projection = nnx.Sequential(
                conv(inputs, 4 * width, (1, 1), strides=stride),
                nnx.BatchNorm(4 * width, rngs=rngs),
            )

    def __call__(self, x):
        y = jax.nn.relu(self.bn0(self.reduce(x)))
        y = jax.nn.relu(self.bn1(self.spatial(y)))
        y = self.bn2(self.expand(y))
        if self.projection is not None:
            x = self.projection(x)
        return jax.nn.relu(x + y)


class ResNet(nnx.Module):
    """Takes a batch of images, channels last."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(
            3,
            64,
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=False,
            rngs=rngs,
        )
        self.bn = nnx.BatchNorm(64, rngs=rngs)
        stages, inputs = [], 64
        for stage, (width, depth) in enumerate(STAGES):
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Bottleneck(inputs, width, stride, rngs=rngs))
                inputs = 4 * width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.classifier = nnx.Linear(inputs, 1000, rngs=rngs)

    def __call__(self, images):
        x = jax.nn.relu(self.bn(self.conv(images)))
        padding: Any = ((1, 1), (1, 1))
        x = nnx.max_pool(x, (3, 3), (2, 2), padding)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.classifier(jnp.mean(x, (1, 2)))
