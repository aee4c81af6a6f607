"""Stock Equinox Dropout, whose `p` and `inference` are pytree leaves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from common.differences import RAISES, SEEDED, Excuse, Family

family = Family("equinox", "dropout")


@family.known_difference(
    name="dropout-keys",
    layer="Dropout",
    quantity="fraction of elements that only one of two masks drops",
    what="Under `vmap` with one key per example, the masks are unrelated to "
    "the single mask that NNX samples for a batch.",
    measured=0.490966796875,
    band=SEEDED,
    ours="`impl_equinox.layers.Dropout` samples one mask per batch from one "
    "key, and each example uses its row of the mask.",
)
def dropout_keys() -> float:
    """Returns the fraction of elements that only one of two masks drops.

    One mask is sampled for the whole batch. The other follows the examples
    of the Equinox documentation, which split the key over the batch.
    """
    dropout = eqx.nn.Dropout(0.5)
    key = jr.key(0)
    x = jnp.ones((64, 64))
    batch_mask = dropout(x, key=key) == 0
    per_example = jax.vmap(lambda x, key: dropout(x, key=key))
    example_masks = per_example(x, jr.split(key, 64)) == 0
    return float(jnp.mean(batch_mask != example_masks))


@family.known_difference(
    name="dropout-all-gradient",
    layer="Dropout(p=1)",
    quantity="fraction of gradient elements that are NaN",
    what="The output is 0, but its gradient is 0 times 1 / 0, which is NaN. "
    "NNX returns 0 for both.",
    measured=1.0,
    origin="1",
    ours="The definition and `impl_equinox.layers.Dropout` return 0 for both.",
    excuses=(
        Excuse(
            layer="dropout",
            dtypes=("float64", "float32", "bfloat16", "float16"),
            quantities=("gradients",),
            options={"p": 1.0, "mask": "example"},
        ),
    ),
)
def dropout_all_gradient() -> float:
    """Returns the fraction of gradients that are NaN if all is dropped."""
    dropout = eqx.nn.Dropout(1.0)

    def loss(x):
        return jnp.sum(dropout(x, key=jr.key(0)))

    return float(jnp.mean(jnp.isnan(jax.grad(loss)(jnp.ones(8)))))


@family.known_difference(
    name="dropout-jit",
    layer="Dropout",
    quantity=RAISES,
    what="`p` and `inference` are pytree leaves, so `jax.jit`, `jax.vmap` "
    "and `jax.lax.scan` over the layer trace them, and the call raises a "
    "TracerBoolConversionError.",
    measured=1.0,
    origin="1",
    upstream="equinox #987",
    related=("equinox #681", "equinox #772"),
    ours="The step of a `Trainer` takes only the leaves that are arrays and "
    "closes over the others.",
)
def dropout_jit() -> float:
    """Returns 1 if the layer cannot be an argument of `jax.jit`.

    Under `jax.jit`, `inference` is a tracer, which an `if` cannot test.
    """
    apply = jax.jit(lambda dropout, x: dropout(x, key=jr.key(0)))
    try:
        apply(eqx.nn.Dropout(0.5), jnp.ones(8))
    except jax.errors.TracerBoolConversionError:
        return 1.0
    return 0.0


@family.known_difference(
    name="dropout-p-dtype",
    layer="Dropout",
    dtype="float64",
    quantity="fraction of elements that only one of two masks drops",
    what="The layer samples uniform numbers in the dtype of `p`, so a rate "
    "that is a float32 array gives another mask than the same rate as a "
    "Python number.",
    measured=0.50146484375,
    band=SEEDED,
    ours="The rates in this project are Python numbers.",
)
def dropout_p_dtype() -> float:
    """Returns the fraction of elements that only one of two masks drops.

    Both masks are sampled from the same key under x64. The uniform numbers
    have the dtype of `p`.
    """
    with jax.enable_x64(True):
        x, key = jnp.ones((64, 64)), jr.key(0)
        rate: Any = jnp.array(0.5, jnp.float32)
        single = eqx.nn.Dropout(rate)
        double = eqx.nn.Dropout(0.5)
        return float(
            jnp.mean((single(x, key=key) == 0) != (double(x, key=key) == 0))
        )
