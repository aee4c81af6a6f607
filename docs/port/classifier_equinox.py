"""An image classifier in Equinox: the source of the guide to porting."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


class Block(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    mlp: eqx.nn.MLP

    def __init__(self, width, key):
        conv_key, mlp_key = jr.split(key)
        self.conv = eqx.nn.Conv2d(
            width, width, kernel_size=3, padding=1, key=conv_key
        )
        self.norm = eqx.nn.BatchNorm(width, axis_name="batch", mode="ema")
        self.mlp = eqx.nn.MLP(
            width, width, 2 * width, 1, activation=jax.nn.gelu, key=mlp_key
        )

    def __call__(self, x, state):
        y, state = self.norm(self.conv(x), state)
        y = jax.vmap(jax.vmap(self.mlp, 1, 1), 2, 2)(y)
        return x + y, state


class Classifier(eqx.Module):
    """Takes one image, channels first."""

    stem: eqx.nn.Conv2d
    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(self, width=8, depth=2, *, key):
        stem_key, head_key, *keys = jr.split(key, 2 + depth)
        self.stem = eqx.nn.Conv2d(1, width, 4, stride=4, key=stem_key)
        self.blocks = [Block(width, key) for key in keys]
        self.head = eqx.nn.Linear(4 * width, 10, key=head_key)

    def __call__(self, image, state):
        x = self.stem(image)
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(jnp.ravel(x)), state


def make(seed=0):
    return eqx.nn.make_with_state(Classifier)(key=jr.key(seed))
