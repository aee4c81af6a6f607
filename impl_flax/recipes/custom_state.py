"""Write stateful layers: a counter, and a key-value cache.

State is an `nnx.Variable` that a layer writes to. `nnx.scan` carries a
module with its Variables.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx


class Counter(nnx.Module):
    """A layer that counts its calls."""

    def __init__(self):
        self.count = nnx.Variable(jnp.array(0))

    def __call__(self):
        self.count[...] += 1
        return self.count[...] - 1


class Decoder(nnx.Module):
    """Attention to the tokens so far, with cached keys and values."""

    def __init__(self, key):
        key1, key2 = jr.split(key)
        self.embedding = nnx.Param(jr.normal(key1, (8, 4)))
        self.projection = nnx.Param(jr.normal(key2, (4, 12)))
        self.counter = Counter()
        self.keys = nnx.Cache(jnp.zeros((6, 4)))
        self.values = nnx.Cache(jnp.zeros((6, 4)))

    def __call__(self, token):
        i = self.counter()
        query, k, v = jnp.split(self.embedding[token] @ self.projection, 3)
        self.keys[i], self.values[i] = k, v
        weights = nnx.softmax(self.keys @ query, where=jnp.arange(6) <= i)
        return self.embedding @ (weights @ self.values)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Decodes six tokens, and returns their logits and their number."""
    model = Decoder(key)

    @nnx.scan(length=6, in_axes=nnx.Carry, out_axes=(nnx.Carry, 0))
    def step(carry):
        model, token = carry
        logits = model(token)
        return (model, jnp.argmax(logits)), logits

    _, logits = step((model, jnp.array(0)))
    return {"logits": logits, "count": model.counter.count[...]}
