"""Dropout."""

from common.differences.row import RAISES, SEEDED, Difference

ROWS = (
    Difference(
        name="dropout-keys",
        family="dropout",
        layer="Dropout",
        backend="equinox",
        quantity="share of elements dropped differently",
        what="Called under vmap with one key an example, the masks are "
        "unrelated to the one mask that NNX draws for a batch.",
        measured=0.490966796875,
        band=SEEDED,
        ours="Our Equinox Dropout draws the batch's mask from one key, and "
        "each example takes its row.",
    ),
    Difference(
        name="dropout-all-gradient",
        family="dropout",
        layer="Dropout(p=1)",
        backend="equinox",
        quantity="share of gradients that are NaN",
        what="The output is 0, but its gradient is 0 times 1 / 0. NNX "
        "returns 0 for both.",
        measured=1.0,
        origin="1",
        ours="The layer table draws rates below 1.",
    ),
    Difference(
        name="dropout-jit",
        family="dropout",
        layer="Dropout",
        backend="equinox",
        quantity=RAISES,
        what="p and inference are leaves of the pytree, so jax.jit, "
        "jax.vmap or jax.lax.scan over the layer traces them: "
        "TracerBoolConversionError.",
        measured=1.0,
        origin="1",
        upstream="equinox #987",
        related=("equinox #681", "equinox #772"),
        ours="A Trainer's step takes the leaves that are arrays, and "
        "closes over the rest; our Equinox Dropout keeps its rate static.",
    ),
    Difference(
        name="dropout-p-dtype",
        family="dropout",
        layer="Dropout",
        backend="equinox",
        dtype="float64",
        quantity="share of elements dropped differently",
        what="A rate that is a float32 array draws other masks than the "
        "same rate as a Python number, as uniform numbers of its dtype are "
        "drawn.",
        measured=0.50146484375,
        band=SEEDED,
        ours="Rates are Python numbers.",
    ),
    Difference(
        name="dropout-stream",
        family="dropout",
        layer="Dropout",
        backend="flax",
        quantity="share of elements dropped differently",
        what="With nnx.Rngs(seed) initialisers and dropout count the same "
        "stream of keys, so a layer more in front changes every mask "
        "behind it.",
        measured=0.49267578125,
        band=SEEDED,
        ours="A Trainer passes each call its key.",
    ),
)
