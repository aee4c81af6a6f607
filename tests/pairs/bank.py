"""Pairs of the same architecture in both libraries, with the true mapping.

A pair is written once in Equinox and once in Flax NNX, as two authors who do
not know of each other would write it. The mapping between their arrays is
written by hand, and `tests/pairs/test_bank.py` shows that it is right.
"""

import atexit
import dataclasses
import importlib
import importlib.util
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.layouts import Concatenate, Layout, Reshape, Stack, Transpose
from common.native import Call, NativeModel
from common.registry import find_library

Sources = Callable[[str], Layout]
"""Returns the layout that takes an array of the left model as it is."""


def same(xs: Any) -> Any:
    """Returns the inputs as they are."""
    return xs


def concatenate(parts: Sequence[Layout], axis: int = 0) -> Layout:
    """Joins layouts along an axis."""
    sizes = tuple(part.shape[axis] for part in parts)
    return Layout(tuple(parts), Concatenate(axis, sizes))


def stack(parts: Sequence[Layout], axis: int = 0) -> Layout:
    """Joins layouts along a new axis."""
    return Layout(tuple(parts), Stack(axis, len(parts)))


def linear(
    take: Sources, old: str, new: str, bias: bool = True
) -> dict[str, Layout]:
    """Returns the layouts of a linear layer, by the layers' paths."""
    made = {f"{new}.kernel": take(f"{old}.weight").then(Transpose((1, 0)))}
    return made | ({f"{new}.bias": take(f"{old}.bias")} if bias else {})


def convolution(
    take: Sources, old: str, new: str, bias: bool = True
) -> dict[str, Layout]:
    """Returns the layouts of a convolution, by the layers' paths."""
    weight = take(f"{old}.weight")
    axes = tuple(range(2, len(weight.shape)))
    made = {f"{new}.kernel": weight.then(Transpose((*axes, 1, 0)))}
    if bias:
        flat = Reshape((weight.shape[0],))
        made[f"{new}.bias"] = take(f"{old}.bias").then(flat)
    return made


def norm(
    take: Sources, old: str, new: str, bias: bool = True
) -> dict[str, Layout]:
    """Returns the layouts of a normalization, by the layers' paths."""
    made = {f"{new}.scale": take(f"{old}.weight")}
    return made | ({f"{new}.bias": take(f"{old}.bias")} if bias else {})


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake in the source of one of the two models.

    Attributes:
        name: what the mistake is.
        side: `"left"` or `"right"`.
        old: a piece of text that the pair's module contains once before
            its function `truth`.
        new: what stands there instead. It has as many lines.
        line: text of the source line that `diff` should name; by default the
            new text.
        other: text of the line of the other side that `diff` may name
            instead, for example that of an operation which is missing.
        training: whether only a call in training mode shows the mistake.
        remapped: whether the models are the same function again under
            another mapping, or with an array held at its value.
    """

    name: str
    side: str
    old: str
    new: str
    line: str = ""
    other: str = ""
    training: bool = False
    remapped: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts, of which the line that `diff` names should contain one."""
        line = self.line or self.new.strip()
        return (line, self.other) if self.other else (line,)


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same architecture in both libraries.

    Attributes:
        name: the name of the pair.
        module: the module that defines it, `__name__`.
        left: makes the Equinox model, or the model and its state: a function
            of the module, which stands before `truth`.
        right: makes the NNX module: a function of the module.
        inputs: makes the batch that both models take.
        truth: makes the layout of each array of the right model over those of
            the left one, by dotted name.
        faults: mistakes in the source of one side.
        left_call: how the left model is called, if not by the defaults.
        right_call: how the right model is called, if not by the defaults.
        left_inputs: makes the left model's batch from the common one.
        right_inputs: makes the right model's batch from the common one.
        left_only: the arrays of the left model that have no counterpart:
            constants, or arrays without effect. They keep their values.
        right_only: those of the right model.
        constants: arrays of the right model that `truth` takes from the left
            one, but that hold the same values anyway.
        free: the arrays of the right model that have no effect on the
            outputs, so that nothing shows where they come from.
        updates: whether a call in training mode updates buffers.
        ceiling: the narrowest dtype that the values of a model pass through
            when its arrays are float64.
    """

    name: str
    module: str
    left: Callable[[], Any]
    right: Callable[[], Any]
    inputs: Callable[[], Any]
    truth: Callable[[Sources], dict[str, Layout]]
    faults: tuple[Fault, ...]
    left_call: Callable[..., Any] | None = None
    right_call: Callable[..., Any] | None = None
    left_inputs: Callable[[Any], Any] = same
    right_inputs: Callable[[Any], Any] = same
    left_only: tuple[str, ...] = ()
    right_only: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    updates: bool = False
    ceiling: str = "float64"

    def layouts(self, left: NativeModel | None = None) -> dict[str, Layout]:
        """Returns the true layout of each array of the right model.

        Args:
            left: the left model, if there is one already.
        """
        infos = (left or NativeModel(self.left())).infos

        def source(name: str) -> Layout:
            return Layout.of(name, infos[name].value.shape)

        return self.truth(source)

    def with_fault(self, fault: Fault) -> Any:
        """Returns the model with a mistake in its source."""
        changed = mutated(self.module, fault.old, fault.new)
        make = getattr(self, fault.side)
        return getattr(changed, make.__name__)()

    def models(
        self, fault: Fault | None = None
    ) -> tuple[NativeModel, NativeModel]:
        """Returns both models, one of them with a mistake if given."""
        made = {"left": self.left, "right": self.right}
        natives = {
            side: self.with_fault(fault)
            if fault is not None and fault.side == side
            else make()
            for side, make in made.items()
        }
        return (
            NativeModel(natives["left"], self.left_call),
            NativeModel(natives["right"], self.right_call),
        )

    def calls(self) -> tuple[Call, Call]:
        """Returns how to call each model on the common batch."""
        return (
            _on_common(self.left_call, "equinox", self.left_inputs),
            _on_common(self.right_call, "flax", self.right_inputs),
        )

    def batches(self) -> tuple[Any, Any]:
        """Returns the batch of each model."""
        xs = self.inputs()
        return self.left_inputs(xs), self.right_inputs(xs)

    def carry(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the arrays of the right model from those of the left one."""
        return {
            name: layout.apply(arrays)
            for name, layout in self.layouts().items()
        }


def _on_common(
    call: Call | None, library: str, inputs: Callable[[Any], Any]
) -> Call:
    inner = call or find_library(library).call

    def on_common(native, xs, *, training, key=None):
        return inner(native, inputs(xs), training=training, key=key)

    return on_common


_MUTATED: dict[tuple[str, str, str], Any] = {}
MUTANTS = pathlib.Path(tempfile.mkdtemp(prefix="pairs-"))
"""The folder with the changed sources of this process."""
atexit.register(shutil.rmtree, MUTANTS)


def mutated(module: str, old: str, new: str) -> Any:
    """Imports a module with one piece of its source replaced.

    The changed source is a file of its own, so that tracebacks lead to it.

    Raises:
        ValueError: if the module does not contain the old text exactly once,
            or if the line numbers would change.
    """
    key = (module, old, new)
    if key not in _MUTATED:
        path = pathlib.Path(str(importlib.import_module(module).__file__))
        source, mark, rest = path.read_text().partition("\ndef truth(")
        if source.count(old) != 1 or old.count("\n") != new.count("\n"):
            raise ValueError(
                f"fault in {module}: got {source.count(old)} places with "
                f"{old!r}, expected one, and as many lines in {new!r}. Quote "
                "the source."
            )
        name = f"{path.stem}_{len(_MUTATED)}"
        copy = MUTANTS / f"{name}.py"
        copy.write_text(source.replace(old, new) + mark + rest)
        spec = importlib.util.spec_from_file_location(name, copy)
        assert spec is not None and spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[name] = made
        spec.loader.exec_module(made)
        _MUTATED[key] = made
    return _MUTATED[key]


MODULES = (
    "fused_attention",
    "own_batch_norm",
    "tied_embedding",
    "gated_recurrence",
    "shifted_names",
    "scanned_layers",
    "grouped_query",
    "batched_autoencoder",
    "mlp_mixer",
    "audio_classifier",
    "conv_next",
    "cross_attention",
)
HELD_OUT = (
    "interleaved_qkv",
    "residual_network",
    "low_rank",
    "nested_stacks",
    "mixed_experts",
    "numpy_constant",
)


def _pairs(names: Sequence[str], package: str) -> tuple[Pair, ...]:
    found = []
    for name in names:
        found += importlib.import_module(f"{package}.{name}").PAIRS
    return tuple(found)


def pairs() -> tuple[Pair, ...]:
    """Returns the pairs on which the search may be tuned."""
    return _pairs(MODULES, "tests.pairs")


def held_out() -> tuple[Pair, ...]:
    """Returns the pairs that only measure how well the search does."""
    return _pairs(HELD_OUT, "tests.pairs.held_out")
