"""Linear layers, embeddings and activations."""

from common.differences.row import RAISES, SEEDED, Difference

ROWS = (
    Difference(
        name="mlp-depth-zero",
        family="linear",
        layer="MLP(depth=0)",
        backend="equinox",
        quantity="share of an output left by a 0 function",
        what="Without hidden layers the final activation is not applied.",
        measured=1.0,
        origin="1",
        ours="All backends mean this; our NNX MLP does it too.",
    ),
    Difference(
        name="mlp-final-softmax",
        family="linear",
        layer="MLP",
        backend="equinox",
        quantity=RAISES,
        what="The final activation is applied to one number at a time, so "
        'a softmax raises "axis -1 is out of bounds".',
        measured=1.0,
        origin="1",
        upstream="equinox #1147",
        ours="Our models end in a Linear, and the loss has the softmax.",
    ),
    Difference(
        name="embedding-out-of-range",
        family="linear",
        layer="Embedding",
        backend="equinox",
        quantity="share of a gradient that goes astray",
        what="An index that is too large reads the last row, and trains "
        "it, without an error. NNX returns NaN and trains none.",
        measured=1.0,
        origin="1",
        ours="The layer table draws valid indices.",
    ),
    Difference(
        name="linear-after-flatten",
        family="linear",
        layer="Linear",
        backend="flax",
        quantity="relative error of an output",
        what="Features that are flattened channels-last meet the weight of a "
        "channels-first model in another order.",
        measured=1.4591161012649536,
        band=SEEDED,
        ours="Our Flax models transpose to (C, H, W) before they flatten, so "
        "that weights need no permutation.",
    ),
    Difference(
        name="embed-one-row",
        family="linear",
        layer="Embed(1, features)",
        backend="flax",
        quantity=RAISES,
        what='A table of one row refuses a scalar index, "Cannot broadcast '
        'to shape with fewer dimensions"; a larger table takes it.',
        measured=1.0,
        origin="1",
        ours="A batch of indices has an axis.",
    ),
    Difference(
        name="embed-one-row-index",
        family="linear",
        layer="Embed(1, features)",
        backend="flax",
        quantity="share of an output that is finite",
        what="A table of one row ignores the index: one that is out of "
        "range returns the row, where a larger table returns NaN.",
        measured=1.0,
        origin="1",
        ours="The layer table draws valid indices.",
    ),
    Difference(
        name="embed-dtype",
        family="linear",
        layer="Embed",
        backend="flax",
        dtype="float64",
        quantity="bytes of an output element",
        what="dtype is that of the table when the layer is made; a table that "
        "is replaced by a float64 one still returns float32, unlike a Linear.",
        expected=8.0,
        measured=4.0,
        origin="4",
        ours="The layer table sets dtype to None afterwards.",
    ),
    Difference(
        name="prelu-slope",
        family="linear",
        layer="PReLU",
        backend="flax",
        quantity="slope at the start",
        what="The slope starts at 0.01, that of a leaky relu; it is 0.25 "
        "in the paper, PyTorch and Equinox.",
        expected=0.25,
        measured=0.01,
        origin="0.01",
        ours="The layer table passes 0.25 to both.",
    ),
)
