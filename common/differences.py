"""Where the libraries' stock layers part from the meaning: rows that run.

A row says what differs and by how much. A function of the same name in
`impl_<backend>/differences.py` shows it. The tests fail when a release closes
a difference, so that the row, and what we did about it, can go.
"""

import contextlib
import dataclasses
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax

from common.layers import Layer
from common.layers.table import name_of
from common.registry import find_backend

NOT_REPORTED = "not reported"
REPOSITORIES = {"equinox": "patrick-kidger/equinox", "flax": "google/flax"}

# What is left of a closed difference, as a share of its recorded size. Half a
# difference is neither still there nor gone: someone must look.
GONE = 1e-2

EXACT = 1e-4
"""Band of a number that follows from a formula, float32 rounding apart."""

SEEDED = 2e-2
"""Band of a number that follows from a seed; matmuls differ a little."""

ROUNDING = 0.9
"""Band of a rounding error: devices sum in their own order.

Over 20 seeds the three numbers that have it move by up to a factor of 2.3.
"""


class Cell(NamedTuple):
    """A part of the layer matrix in which a difference shows.

    Attributes:
        layer: the row of the layer table.
        dtypes: columns.
        quantities: what differs: `"output"`, `"gradients"`, `"buffers"`.
        options: hyper-parameters with which it does.
    """

    layer: str
    dtypes: tuple[str, ...]
    quantities: tuple[str, ...]
    options: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A known difference between a stock layer and what it should mean.

    Attributes:
        name: a slug; `_` for `-` makes it the demonstration's name.
        layer: the layer, or what holds the state.
        backend: the library whose stock layer it is.
        dtype: of the demonstration.
        quantity: what is measured; its unit, so to say.
        what: what differs, in one sentence.
        expected: the number that the meaning demands.
        measured: the number on record: of the formula in `origin`, else of
            equinox 0.13.8, flax 0.12.8 and jax 0.10.2, on the CPU.
        band: how far from `measured`, as a share of the recorded difference,
            a number still is the same difference.
        origin: the formula behind `measured`, or "measured".
        upstream: the issue that reports it, or "not reported".
        related: issues around it.
        ours: what this project does about it.
        cells: where the layer matrix meets it, and lets it pass.
    """

    name: str
    layer: str
    backend: Literal["equinox", "flax"]
    dtype: Literal["float32", "float64"] = "float32"
    quantity: str
    what: str
    expected: float = 0.0
    measured: float
    band: float = EXACT
    origin: str = "measured"
    upstream: str = NOT_REPORTED
    related: tuple[str, ...] = ()
    ours: str
    cells: tuple[Cell, ...] = ()

    @property
    def function(self) -> str:
        """The name of the demonstration."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The module that the demonstration is in."""
        return f"impl_{self.backend}.differences"

    @property
    def size(self) -> float:
        """The recorded distance from what is expected."""
        return abs(self.measured - self.expected)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a demonstration returned.

    Attributes:
        row: the difference that was measured.
        value: the number.
    """

    row: Difference
    value: float

    @property
    def still_there(self) -> bool:
        """Whether the number is the one on record, within its band."""
        row = self.row
        return abs(self.value - row.measured) <= row.band * row.size

    @property
    def gone(self) -> bool:
        """Whether the library now agrees with the meaning."""
        return abs(self.value - self.row.expected) <= GONE * self.row.size

    @property
    def verdict(self) -> str:
        """`"still there"`, `"gone"`, or `"changed"` if it is neither."""
        if self.still_there:
            return "still there"
        return "gone" if self.gone else "changed"


def excused(layer: Layer, backend: str, dtype: str) -> set[str]:
    """Returns the quantities of a layer that are known to differ."""
    options = layer.options()
    return {
        quantity
        for row in DIFFERENCES
        if row.backend == backend
        for cell in row.cells
        if cell.layer == name_of(type(layer))
        and dtype in cell.dtypes
        and cell.options.items() <= options.items()
        for quantity in cell.quantities
    }


# --- running the rows -------------------------------------------------------


def demonstrations(backend: str) -> dict[str, Callable[[], float]]:
    """Returns the demonstrations of a backend by name.

    Raises:
        BackendNotInstalledError: if its library is missing.
    """
    find_backend(backend)  # says what to install
    module = importlib.import_module(f"impl_{backend}.differences")
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }


def find_demonstration(row: Difference) -> Callable[[], float]:
    """Returns the function that measures a row.

    Raises:
        ValueError: if there is none.
        BackendNotInstalledError: if the row's library is missing.
    """
    found = demonstrations(row.backend)
    if row.function not in found:
        raise ValueError(
            f"demonstration of {row.name!r}: got no function "
            f"`{row.function}` in {row.module}, expected one. Write it, or "
            "correct the name of the row."
        )
    return found[row.function]


def measure(row: Difference) -> Measurement:
    """Runs the demonstration of a row, under JAX's default settings.

    Raises:
        ValueError: if the row has no demonstration.
        BackendNotInstalledError: if its library is missing.
    """
    demonstration = find_demonstration(row)
    with contextlib.ExitStack() as defaults:
        # The stock layers are shown as most people run them. A float64 row
        # switches x64 on itself.
        defaults.enter_context(jax.enable_x64(False))
        defaults.enter_context(jax.numpy_rank_promotion("allow"))
        defaults.enter_context(jax.numpy_dtype_promotion("standard"))
        return Measurement(row, demonstration())


def require_complete(rows: Sequence[Difference]) -> None:
    """Checks that rows and demonstrations match, one for one.

    Raises:
        ValueError: naming a row without a demonstration, a demonstration
            without a row, or a name that two rows have.
    """
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"rows named {name!r}: got {names.count(name)}, expected 1. "
                "Rename all but one."
            )
    for row in rows:
        find_demonstration(row)
    known = {(row.backend, row.function) for row in rows}
    for backend in REPOSITORIES:
        for name in demonstrations(backend):
            if (backend, name) not in known:
                raise ValueError(
                    f"row of impl_{backend}.differences.{name}: got none in "
                    "common.differences.DIFFERENCES, expected one. Add it, "
                    "or delete the function."
                )


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        name="batch-norm-ema-train",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        quantity="mean of a training output",
        what="Training normalises by the running statistics, so a batch that "
        "is unlike those before comes out neither centred nor scaled.",
        measured=4.95 / math.sqrt(1.08),
        origin="(5 - 0.05) / sqrt(0.99 * 1 + 0.01 * 9)",
        upstream="equinox #659",
        related=("equinox #675", "equinox #948"),
        ours='A spec names its dialect: "ema" means this in every backend, '
        '"standard" and "batch" train on batch statistics.',
    ),
    Difference(
        name="batch-norm-batch-eval",
        layer="BatchNorm(mode='batch')",
        backend="equinox",
        quantity="variance at inference beyond the data's",
        what="Inference divides a running variance that started at 1 by "
        "1 - m^k, as if it had started at 0: m^k / (1 - m^k) too much after "
        "k steps of momentum m.",
        measured=0.99**10 / (1 - 0.99**10),
        origin="m^k / (1 - m^k), m = 0.99, k = 10",
        related=("equinox #948", "equinox #955", "equinox #1010"),
        ours='The dialect "batch" means this in every backend; "standard" '
        "does not divide.",
    ),
    Difference(
        name="batch-norm-ema-untrained",
        layer="BatchNorm(mode='ema')",
        backend="equinox",
        quantity="factor on an input at inference",
        what="Before any training the running variance is 0, so inference "
        "multiplies its input by 1 / sqrt(eps).",
        expected=1.0,
        measured=1 / math.sqrt(1e-5),
        origin="1 / sqrt(eps)",
        upstream="equinox #955",
        ours='The dialect "ema" means this in every backend; the others '
        "start from a variance of 1.",
    ),
    Difference(
        name="batch-norm-doc-unbiased",
        layer="BatchNorm",
        backend="equinox",
        quantity="stored variance of {0, 2} below the unbiased",
        what="The documentation promises the unbiased variance at inference, "
        "as in PyTorch; the biased one is stored.",
        measured=1.0,
        origin="2 - 1",
        ours="Every dialect stores the biased variance, so that both "
        "libraries agree.",
    ),
    Difference(
        name="batch-norm-gradient",
        layer="BatchNorm",
        backend="equinox",
        quantity="gradient of the running mean by a shift",
        what="Gradients flow from one call to the next through the running "
        "statistics, which NNX stops.",
        measured=0.1,
        origin="1 - m, m = 0.9",
        ours="A training step takes the gradient of a single call, so none "
        "flows here; a loss over several calls needs its own stop_gradient.",
    ),
    Difference(
        name="state-out-axes",
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
        name="state-reuse",
        layer="State",
        backend="equinox",
        quantity="batches lost of two",
        what="Passing an old State a second time raises in plain Python, but "
        "not through filter_jit or vmap: the first batch is forgotten.",
        measured=1.0,
        origin="1",
        upstream="equinox #1071",
        ours="A Trainer holds the only State, and each step donates the old "
        "arrays.",
    ),
    Difference(
        name="dropout-keys",
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
        name="spectral-norm-eval",
        layer="SpectralNorm",
        backend="flax",
        quantity="change of a kernel entry by an evaluation",
        what="Every call, also in evaluation, overwrites the wrapped Param "
        "with the normalised kernel.",
        measured=1.0,
        origin="2 - 2 / 2",
        upstream="flax #5576",
        ours="Our NNX SpectralNorm calls the layer through a copy that holds "
        "the divided kernel.",
    ),
    Difference(
        name="spectral-norm-training",
        layer="SpectralNorm",
        backend="flax",
        quantity="share by which the loss is lower after 20 steps",
        what="Updates are added to the kernel that was divided, not to the "
        "one underneath as in the paper, so training takes larger steps.",
        measured=0.7422181367874146,
        band=SEEDED,
        upstream="flax #5576",
        ours="Our NNX SpectralNorm keeps the paper's rule.",
    ),
    Difference(
        name="batch-norm-float64",
        layer="BatchNorm",
        backend="flax",
        dtype="float64",
        quantity="error of an evaluation",
        what="The running statistics are float32 whatever param_dtype says, "
        "so evaluation of a float64 model is good to 7 digits.",
        measured=6.705900368331186e-08,
        band=ROUNDING,
        ours="Building a model replaces the statistics by arrays of its own "
        "dtype.",
    ),
    Difference(
        name="batch-norm-mean-1e3",
        layer="BatchNorm",
        backend="flax",
        quantity="relative error of the batch variance",
        what="By default the variance is E[x^2] - E[x]^2, which cancels in "
        "float32 where the mean is 1e3 times the standard deviation.",
        measured=0.22437351942062378,
        band=ROUNDING,
        ours="Our models pass use_fast_variance=False.",
    ),
    Difference(
        name="batch-norm-mean-1e4",
        layer="BatchNorm",
        backend="flax",
        quantity="relative error of the batch variance",
        what="E[x^2] - E[x]^2 again, where the mean is 1e4 times the "
        "standard deviation: no digit is left, and half of the variances "
        "are clipped to 0.",
        measured=50.77238464355469,
        band=ROUNDING,
        ours="Our models pass use_fast_variance=False.",
    ),
    Difference(
        name="batch-norm-biased",
        layer="BatchNorm",
        backend="flax",
        quantity="stored variance of {0, 2} below the unbiased",
        what="The biased variance is stored for evaluation, where the paper "
        "(algorithm 2) and PyTorch use the unbiased one.",
        measured=1.0,
        origin="2 - 1",
        ours="Every dialect stores the biased variance, so that both "
        "libraries agree.",
    ),
    Difference(
        name="batch-norm-jax-jit",
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
        name="linear-after-flatten",
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
)
