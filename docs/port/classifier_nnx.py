"""The classifier in Flax NNX, as another author would write it."""

import jax
from flax import nnx

from impl_flax.layers import BatchNorm


class Layer(nnx.Module):
    def __init__(self, features, rngs, eps=1e-5):
        self.spatial = nnx.Conv(features, features, (3, 3), rngs=rngs)
        self.bn = BatchNorm(
            features, mode="ema", momentum=0.99, epsilon=eps, rngs=rngs
        )
        self.up = nnx.Linear(features, 2 * features, rngs=rngs)
        self.down = nnx.Linear(2 * features, features, rngs=rngs)

    def __call__(self, x):
        y = self.bn(self.spatial(x))
        return x + self.down(jax.nn.gelu(self.up(y)))


class Net(nnx.Module):
    """Takes a batch of images, channels last."""

    def __init__(self, features=8, layers=2, *, eps=1e-5, rngs):
        self.patches = nnx.Conv(
            1, features, (4, 4), strides=4, padding="VALID", rngs=rngs
        )
        self.encoder = nnx.List(
            [Layer(features, rngs, eps) for _ in range(layers)]
        )
        self.logits = nnx.Linear(4 * features, 10, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images)
        for layer in self.encoder:
            x = layer(x)
        return self.logits(x.reshape(x.shape[0], -1))


def make(seed=1, eps=1e-5):
    return Net(eps=eps, rngs=nnx.Rngs(seed))
