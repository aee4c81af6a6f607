"""Stock Equinox Dropout, whose `p` and `inference` are leaves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


def dropout_keys() -> float:
    """Returns the share of elements that one key drops differently.

    Once for the whole batch, and once as Equinox's examples do: with a key
    split over the examples.
    """
    dropout = eqx.nn.Dropout(0.5)
    key = jr.key(0)
    x = jnp.ones((64, 64))
    batch_mask = dropout(x, key=key) == 0
    per_example = jax.vmap(lambda x, key: dropout(x, key=key))
    example_masks = per_example(x, jr.split(key, 64)) == 0
    return float(jnp.mean(batch_mask != example_masks))


def dropout_all_gradient() -> float:
    """Returns the share of gradients that are NaN where all is dropped."""
    dropout = eqx.nn.Dropout(1.0)

    def loss(x):
        return jnp.sum(dropout(x, key=jr.key(0)))

    return float(jnp.mean(jnp.isnan(jax.grad(loss)(jnp.ones(8)))))


def dropout_jit() -> float:
    """Returns 1 if the layer cannot be an argument of `jax.jit`.

    Then `inference` is traced, and cannot decide an `if`.
    """
    apply = jax.jit(lambda dropout, x: dropout(x, key=jr.key(0)))
    try:
        apply(eqx.nn.Dropout(0.5), jnp.ones(8))
    except jax.errors.TracerBoolConversionError:
        return 1.0
    return 0.0


def dropout_p_dtype() -> float:
    """Returns the share of elements that a float32 `p` drops differently.

    From the same key, under x64: the uniform numbers have the dtype of `p`.
    """
    with jax.enable_x64(True):
        x, key = jnp.ones((64, 64)), jr.key(0)
        rate: Any = jnp.array(0.5, jnp.float32)
        single = eqx.nn.Dropout(rate)
        double = eqx.nn.Dropout(0.5)
        return float(
            jnp.mean((single(x, key=key) == 0) != (double(x, key=key) == 0))
        )
