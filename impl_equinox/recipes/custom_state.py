"""Write stateful layers: a counter, and a key-value cache.

A `State` is a pytree that maps each `StateIndex` to its current value.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


class Counter(eqx.Module):
    """A layer that counts its calls."""

    index: eqx.nn.StateIndex

    def __init__(self):
        self.index = eqx.nn.StateIndex(jnp.array(0))

    def __call__(self, state):
        count = state.get(self.index)
        return count, state.set(self.index, count + 1)


class Decoder(eqx.Module):
    """Attention to the tokens so far, with cached keys and values."""

    embedding: jax.Array
    projection: jax.Array
    counter: Counter
    cache: eqx.nn.StateIndex

    def __init__(self, key):
        key1, key2 = jr.split(key)
        self.embedding = jr.normal(key1, (8, 4))
        self.projection = jr.normal(key2, (4, 12))
        self.counter = Counter()
        self.cache = eqx.nn.StateIndex((jnp.zeros((6, 4)), jnp.zeros((6, 4))))

    def __call__(self, token, state):
        i, state = self.counter(state)
        query, k, v = jnp.split(self.embedding[token] @ self.projection, 3)
        keys, values = state.get(self.cache)
        keys, values = keys.at[i].set(k), values.at[i].set(v)
        state = state.set(self.cache, (keys, values))
        weights = jax.nn.softmax(keys @ query, where=jnp.arange(6) <= i)
        return self.embedding @ (weights @ values), state


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Decodes six tokens, and returns their logits and their number."""
    model, state = eqx.nn.make_with_state(Decoder)(key)

    def step(carry, _):
        token, state = carry
        logits, state = model(token, state)
        return (jnp.argmax(logits), state), logits

    (_, state), logits = jax.lax.scan(step, (jnp.array(0), state), length=6)
    return {"logits": logits, "count": state.get(model.counter.index)}
