"""Stock NNX Dropout, whose stream of keys counts its calls."""

import jax.numpy as jnp
from flax import nnx

from common.differences import SEEDED, Family

family = Family("flax", "dropout")


@family.known_difference(
    name="dropout-stream",
    layer="Dropout",
    quantity="fraction of elements that only one of two masks drops",
    what="With `nnx.Rngs(seed)` the initializers and dropout share one stream "
    "of keys, so inserting a layer changes the masks of all later layers.",
    measured=0.49267578125,
    band=SEEDED,
    ours="A `Trainer` passes a key to each call.",
)
def dropout_stream() -> float:
    """Returns the fraction of elements that only one of two masks drops.

    Both models are created from the same seed, but one of them has a Linear
    layer before the Dropout.
    """

    def dropped(rngs):
        dropout = nnx.Dropout(0.5, rngs=rngs)
        return dropout(jnp.ones((64, 64))) == 0

    alone, after_linear = nnx.Rngs(0), nnx.Rngs(0)
    nnx.Linear(1, 1, rngs=after_linear)
    return float(jnp.mean(dropped(alone) != dropped(after_linear)))
