"""State, modules and Variables, whatever the layer."""

import numpy as np

from common.differences.row import RAISES, Difference

ROWS = (
    Difference(
        name="state-out-axes",
        family="state",
        layer="State",
        backend="equinox",
        quantity="axes that a running mean gains",
        what="A vmap without out_axes=(0, None) raises nothing and gives "
        "every array of the State a batch axis.",
        measured=1.0,
        origin="1",
        related=("equinox #580", "equinox #586"),
        ours="The backend writes the vmap once, and a Trainer's step raises "
        "if the shape of any leaf changes.",
    ),
    Difference(
        name="state-out-axes-eval",
        family="state",
        layer="State",
        backend="equinox",
        quantity="axes too many of an evaluation's output",
        what="The State that a vmap without out_axes=(0, None) returned is "
        "used in evaluation: with as many examples as channels the output "
        "has an axis too many, else it raises.",
        measured=1.0,
        origin="1",
        related=("equinox #580", "equinox #586"),
        ours="The backend writes the vmap once, and a Trainer's step "
        "raises if the shape of any leaf changes.",
    ),
    Difference(
        name="state-reuse",
        family="state",
        layer="State",
        backend="equinox",
        quantity="batches lost of two",
        what="Passing an old State a second time raises in plain Python, but "
        "not through filter_jit: the first batch is forgotten.",
        measured=1.0,
        origin="1",
        upstream="equinox #1071",
        ours="A Trainer holds the only State, and each step donates the old "
        "arrays.",
    ),
    Difference(
        name="state-reuse-vmap",
        family="state",
        layer="State",
        backend="equinox",
        quantity="batches lost of two",
        what="An old State passes a second time through a plain vmap too, "
        "with nothing compiled: each vmap makes a new object of it.",
        measured=1.0,
        origin="1",
        related=("equinox #1071",),
        ours="A Trainer holds the only State.",
    ),
    Difference(
        name="state-set-restored",
        family="state",
        layer="State",
        backend="equinox",
        quantity=RAISES,
        what="State.set refuses a counter that was saved and restored, "
        '"Old and new values have different dtypes": the old one is weakly '
        "typed.",
        measured=1.0,
        origin="1",
        upstream="equinox #885",
        ours="A State is rebuilt from its leaves, not by State.set.",
    ),
    Difference(
        name="batch-norm-jax-jit",
        family="state",
        layer="any nnx.Module",
        backend="flax",
        quantity="share of an update that is lost",
        what="A module that is an argument of jax.jit loses what the call "
        "writes to its Variables, without an error.",
        measured=1.0,
        origin="1",
        ours="A Trainer splits the module into leaves, and its jitted step "
        "returns all of them.",
    ),
    Difference(
        name="variable-dtype",
        family="state",
        layer="nnx.Variable",
        backend="flax",
        dtype="float64",
        quantity="error of a stored 1/3",
        what="variable[...] = x keeps the old dtype, so float64 is "
        "truncated to float32, with a FutureWarning that it will be an "
        "error.",
        measured=float(np.float32(1 / 3)) - 1 / 3,
        origin="float32(1/3) - 1/3",
        ours="Arrays are written by set_value, which takes the new dtype.",
    ),
    Difference(
        name="param-dtype",
        family="state",
        layer="any nnx.Module",
        backend="flax",
        dtype="float64",
        quantity="bytes of an element of a weight",
        what="Parameters are float32 also where x64 is on, where JAX and "
        "Equinox make float64: param_dtype is a constant.",
        expected=8.0,
        measured=4.0,
        origin="4",
        related=("flax #1777",),
        ours="Building a model replaces every array by one of the model's "
        "dtype.",
    ),
)
