"""Stock NNX Linear, Embed, and PReLU."""

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx

from common.differences import RAISES, SEEDED, Family

family = Family("flax", "linear")


@family.known_difference(
    name="linear-after-flatten",
    layer="Linear",
    quantity="relative error of an output",
    what="Features that are flattened from a channels-last array have another "
    "order than the weight of a channels-first model expects.",
    measured=1.4591161012649536,
    band=SEEDED,
    ours="Our Flax models transpose to (C, H, W) before they flatten, so "
    "their weights need no permutation.",
)
def linear_after_flatten() -> float:
    """Returns the relative error of a Linear layer after a flatten.

    The same weight is applied to features in channels-first order and in
    channels-last order. The error of unrelated outputs would be sqrt(2).
    """
    linear = nnx.Linear(8 * 8 * 32, 64, use_bias=False, rngs=nnx.Rngs(0))
    x = jr.normal(jr.key(0), (16, 8, 8, 32))  # (B, H, W, C)
    channels_first = jnp.transpose(x, (0, 3, 1, 2))
    expected = linear(channels_first.reshape(16, -1))
    got = linear(x.reshape(16, -1))
    return float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))


@family.known_difference(
    name="embed-one-row",
    layer="Embed(1, features)",
    quantity=RAISES,
    what="A table with one row rejects a scalar index, which a larger table "
    "accepts. The error is `Cannot broadcast to shape with fewer dimensions`.",
    measured=1.0,
    origin="1",
    ours="The layer table passes batches of indices, which are not scalars.",
)
def embed_one_row() -> float:
    """Returns 1 if a table with one row rejects a scalar index."""
    embed = nnx.Embed(1, 4, rngs=nnx.Rngs(0))
    try:
        embed(jnp.array(0))
    except ValueError:  # "Cannot broadcast to shape with fewer dimensions"
        return 1.0
    return 0.0


@family.known_difference(
    name="embed-one-row-index",
    layer="Embed(1, features)",
    quantity="fraction of output elements that are finite",
    what="A table with one row ignores the index, so it returns its row even "
    "for an index that is out of range. A larger table returns NaN.",
    measured=1.0,
    origin="1",
    ours="The layer table draws valid indices.",
)
def embed_one_row_index() -> float:
    """Returns the fraction of outputs that are finite for a bad index.

    The table has one row and the index is 7. A larger table returns NaN for
    an index that is out of range.
    """
    embed = nnx.Embed(1, 4, rngs=nnx.Rngs(0))
    return float(jnp.mean(jnp.isfinite(embed(jnp.array([7])))))


@family.known_difference(
    name="embed-dtype",
    layer="Embed",
    dtype="float64",
    quantity="size of an output element, in bytes",
    what="The layer fixes its `dtype` to that of the initial table, so a "
    "table that is replaced with a float64 one still returns float32. A "
    "`Linear` returns float64.",
    expected=8.0,
    measured=4.0,
    origin="4",
    ours="The layer table sets `dtype` to None after it creates the layer.",
)
def embed_dtype() -> float:
    """Returns the size of an output element, in bytes of a float64 table.

    The table was float32, as by default, when the layer was created.
    """
    with jax.enable_x64(True):
        embed = nnx.Embed(3, 4, rngs=nnx.Rngs(0))
        embed.embedding.set_value(jnp.ones((3, 4), jnp.float64))
        return float(embed(jnp.array([1])).itemsize)


@family.known_difference(
    name="prelu-slope",
    layer="PReLU",
    quantity="initial slope for negative inputs",
    what="The slope starts at 0.01, which is the default of a leaky ReLU. It "
    "starts at 0.25 in the paper, PyTorch, and Equinox.",
    expected=0.25,
    measured=0.01,
    origin="0.01",
    ours="The layer table passes 0.25 to both layers.",
)
def prelu_slope() -> float:
    """Returns the initial slope, which is 0.25 in the paper."""
    return float(nnx.PReLU().negative_slope[...])
