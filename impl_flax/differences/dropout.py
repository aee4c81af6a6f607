"""Stock NNX Dropout, which counts the keys that it draws."""

import jax.numpy as jnp
from flax import nnx


def dropout_stream() -> float:
    """Returns the share of elements dropped differently.

    Of two models from one seed, one has a Linear before the Dropout.
    """

    def dropped(rngs):
        dropout = nnx.Dropout(0.5, rngs=rngs)
        return dropout(jnp.ones((64, 64))) == 0

    alone, behind = nnx.Rngs(0), nnx.Rngs(0)
    nnx.Linear(1, 1, rngs=behind)
    return float(jnp.mean(dropped(alone) != dropped(behind)))
