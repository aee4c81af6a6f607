"""Stock Equinox MLP and Embedding."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from common.differences import RAISES, Family

family = Family("equinox", "linear")


@family.known_difference(
    name="mlp-depth-zero",
    layer="MLP(depth=0)",
    quantity="ratio of the output to the output before the activation",
    what="Without hidden layers the MLP does not apply its final activation.",
    measured=1.0,
    origin="1",
    ours="The definition does not apply it either, and "
    "`impl_flax.layers.MLP` behaves the same way.",
)
def mlp_depth_zero() -> float:
    """Returns the ratio of the output to the output before the activation.

    The final activation returns zeros, so the ratio should be 0.
    """
    mlp = eqx.nn.MLP(
        1, 1, 1, depth=0, final_activation=jnp.zeros_like, key=jr.key(0)
    )
    x = jnp.ones(1)
    return float(mlp(x)[0] / mlp.layers[0](x)[0])


@family.known_difference(
    name="mlp-final-softmax",
    layer="MLP",
    quantity=RAISES,
    what="The final activation is applied to one number at a time, so a "
    "softmax raises the error `axis -1 is out of bounds`.",
    measured=1.0,
    origin="1",
    upstream="equinox #1147",
    ours="Our models end in a `Linear`, and the loss applies the softmax.",
)
def mlp_final_softmax() -> float:
    """Returns 1 if the final activation cannot be a softmax.

    The layer calls the activation on one number at a time.
    """
    mlp = eqx.nn.MLP(
        2, 3, 4, depth=1, final_activation=jax.nn.softmax, key=jr.key(0)
    )
    try:
        mlp(jnp.ones(2))
    except ValueError:  # "axis -1 is out of bounds for array of dimension 0"
        return 1.0
    return 0.0


@family.known_difference(
    name="embedding-out-of-range",
    layer="Embedding",
    quantity="gradient of the last row for an index that is out of range",
    what="An index that is too large reads the last row and trains it, "
    "without an error. NNX returns NaN and trains no row.",
    measured=1.0,
    origin="1",
    ours="The layer table draws valid indices.",
)
def embedding_out_of_range() -> float:
    """Returns the gradient of the last of three rows for the index 7.

    No row has the index 7, so the gradient of every row should be 0.
    """

    def total(weight):
        return jnp.sum(eqx.nn.Embedding(weight=weight)(jnp.array(7)))

    return float(jnp.mean(jax.grad(total)(jnp.ones((3, 4)))[-1]))
