"""Stock Equinox MLP and Embedding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


def mlp_depth_zero() -> float:
    """Returns the share of an output that a final activation of 0 leaves."""
    mlp = eqx.nn.MLP(
        1, 1, 1, depth=0, final_activation=jnp.zeros_like, key=jr.key(0)
    )
    x = jnp.ones(1)
    return float(mlp(x)[0] / mlp.layers[0](x)[0])


def mlp_final_softmax() -> float:
    """Returns 1 if the final activation cannot be a softmax.

    It is called on one number at a time.
    """
    mlp = eqx.nn.MLP(
        2, 3, 4, depth=1, final_activation=jax.nn.softmax, key=jr.key(0)
    )
    try:
        mlp(jnp.ones(2))
    except ValueError:  # "axis -1 is out of bounds for array of dimension 0"
        return 1.0
    return 0.0


def embedding_out_of_range() -> float:
    """Returns the share of a gradient that an index too large sends astray.

    To the last of three rows, which index 7 did not mean.
    """

    def total(weight):
        return jnp.sum(eqx.nn.Embedding(weight=weight)(jnp.array(7)))

    return float(jnp.mean(jax.grad(total)(jnp.ones((3, 4)))[-1]))
