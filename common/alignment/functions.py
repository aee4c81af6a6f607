"""`align`: finds the mapping between the arrays of two models."""

import dataclasses
import fnmatch
import resource
import time
from collections.abc import Iterable
from typing import Any

from common.alignment.aligner import Aligner, Mapping
from common.alignment.counters import pair_counters, without
from common.alignment.divergences import (
    SymmetricPoint,
    describe_place,
    symmetric_point,
)
from common.alignment.result import (
    DIFFERS,
    PROVED,
    REFUSED,
    Alignment,
    AlignmentError,
    Choice,
    Cost,
)
from common.alignment.runs import Runs
from common.alignment.sides import ARRAY_VALUE_ERRORS, Side, find_needed
from common.alignment.training import prove_training
from common.divergence.result import Diff
from common.native import Call, NativeModel, inputs_of_both
from common.porting.arrays import ArrayInfo
from common.porting.folding import fold
from common.rendering.progress import ProgressBar

MAX_CUTS = 150
"""How many ways of cutting the arrays are tried by default."""


def align(
    left: Any,
    right: Any,
    xs: Any = None,
    *,
    left_call: Call | None = None,
    right_call: Call | None = None,
    left_inputs: Any = None,
    right_inputs: Any = None,
    constants: Iterable[str] = (),
    max_cuts: int = MAX_CUTS,
    progress: bool = True,
) -> Alignment:
    """Finds which arrays of one model make which arrays of another.

    Neither names, nor containers, nor call signatures need to be equal: the
    models are run, in float64 and in inference mode. They are not changed.

    Args:
        left: an Equinox model, a pair of a model and its `eqx.nn.State`, or
            an NNX module.
        right: the other model, of either library.
        xs: a batch of inputs for both.
        left_call: how the left model is called, as in `NativeModel`. Its
            outputs must have their elements in the order of the right ones.
        right_call: how the right model is called.
        left_inputs: the batch of the left model, if it takes the same inputs
            in another form.
        right_inputs: the batch of the right model, likewise.
        constants: names of arrays of either model, or patterns such as
            `*.freqs`, which are constants and stay as they are.
        max_cuts: how many ways of cutting the arrays are tried.
        progress: whether to show a progress bar, on a terminal.

    Returns:
        The mapping. Its status is `"proved"`, or `"mapped, but differs"` for
        models of one architecture with a numerical difference.

    Raises:
        AlignmentError: if no mapping makes the models equal. The message
            names the place at which they differ.
        TypeError: if a model is of neither library.
        ValueError: if a name in `constants` is of neither model.
    """
    start = time.monotonic()
    sides, calls, aligner, notes = _prepare(
        (left, right),
        (left_call, right_call),
        (left_inputs, right_inputs),
        xs,
        constants,
        max_cuts,
    )
    with ProgressBar(
        max_cuts, "running the models", enabled=progress, transient=True
    ) as bar:
        found, is_exact = aligner.search(bar)
        bar.describe("proving the mapping")
        if found is None:
            raise _refusal(sides, calls, aligner, notes, start)
        divergence, training = None, None
        if is_exact:
            training, more = prove_training(
                sides, found, aligner.runs.tolerance
            )
            notes += more
        else:
            point = _symmetric_point(sides, calls, aligner)
            divergence = _find_divergence(point)
    status = PROVED if is_exact else DIFFERS
    return _alignment(
        sides, aligner, found, status, notes, start, training, divergence
    )


def symmetric_arguments(
    left: Any,
    right: Any,
    xs: Any = None,
    *,
    left_call: Call | None = None,
    right_call: Call | None = None,
    left_inputs: Any = None,
    right_inputs: Any = None,
    constants: Iterable[str] = (),
    max_cuts: int = MAX_CUTS,
) -> SymmetricPoint:
    """Returns two models as functions of arrays that hold the same values.

    With them, models of unrelated weights can be compared without a mapping.
    The arguments are those of `align`.

    Raises:
        ValueError: if the models cannot be compared.
    """
    sides, calls, aligner, _ = _prepare(
        (left, right),
        (left_call, right_call),
        (left_inputs, right_inputs),
        xs,
        constants,
        max_cuts,
    )
    return _symmetric_point(sides, calls, aligner)


def _prepare(models, calls, inputs, xs, constants, max_cuts):
    """Compiles both models."""
    constants = tuple(constants)
    batches = inputs_of_both(xs, *inputs)
    sides, notes, known = [], [], set()
    for label, model, call, given in zip(
        ("left", "right"), models, calls, batches, strict=True
    ):
        native = NativeModel(model, call)
        pinned = {
            name
            for pattern in constants
            for name in fnmatch.filter(native.infos, pattern)
        }
        known |= {p for p in constants if fnmatch.filter(native.infos, p)}
        side = Side(label, native, given, pinned)
        _compile(side)
        if side.needed:
            notes.append(
                f"{label}: the model needs to know the values of "
                f"{', '.join(side.needed)}, which are treated as constants"
            )
        sides.append(side)
    unknown = sorted(set(constants) - known)
    if unknown:
        raise ValueError(
            f"constants: got {unknown}, expected names or patterns of arrays "
            "of either model. Use the dotted path of an array."
        )
    pair = (sides[0], sides[1])
    if [_size(s) for s in pair[0].shapes] != [
        _size(s) for s in pair[1].shapes
    ]:
        raise ValueError(
            f"outputs: got arrays of the shapes {pair[0].shapes} on the left "
            f"and {pair[1].shapes} on the right, expected as many elements "
            "in the same order. Return the same outputs from both, with "
            "`left_call` or `right_call`."
        )
    return pair, calls, Aligner(Runs(pair), max_cuts), notes


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _compile(side: Side) -> None:
    """Compiles a model, with as many arrays as arguments as it allows."""
    try:
        try:
            side.compile()
        except ARRAY_VALUE_ERRORS:
            side.pin(find_needed(side))
            side.compile()
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise TypeError(
            f"{side.label} model: got {type(error).__name__} while tracing "
            f"({text}), expected a model that `jax.jit` accepts. Check the "
            f"inputs, or say with `{side.label}_call` how it is called."
        ) from error


def _symmetric_point(sides, calls, aligner: Aligner) -> SymmetricPoint:
    error, arrangement, values = aligner.find_place()
    point = aligner.runs.points[0]
    return symmetric_point(sides, calls, arrangement, point, values, error)


def _find_divergence(point: SymmetricPoint) -> Diff | None:
    try:
        return point.diff()
    except (TypeError, ValueError):
        return None


def _refusal(sides, calls, aligner, notes, start) -> AlignmentError:
    """Returns the error for models that have no mapping."""
    point = _symmetric_point(sides, calls, aligner)
    divergence = _find_divergence(point)
    arrangement = aligner.find_place()[1]
    values = "the same values" if aligner.suspect is None else "random values"
    lines = [
        f"models: got outputs that differ by {point.error:.2g} where both "
        f"hold {values}, after {aligner.cuts} ways to cut their arrays, "
        "expected equal ones"
    ]
    if aligner.failure:
        lines.append(fold(aligner.failure))
    if not arrangement.is_balanced:
        left, right = arrangement.names_without_counterpart()
        lines.append(
            fold(f"arrays without a counterpart: left {left}, right {right}")
        )
        left, right = arrangement.sizes_of_one_side()
        if left or right:
            lines.append(
                f"sizes of axes that one side lacks: left {left}, right "
                f"{right}"
            )
    if divergence is not None and not divergence.ok:
        lines.append(describe_place(divergence))
    message = "\n".join(lines) + (
        "\nMake the models compute the same function, or pin arrays that are "
        "constants\nwith `constants`."
    )
    alignment = _alignment(
        sides, aligner, None, REFUSED, notes, start, None, divergence
    )
    alignment = dataclasses.replace(alignment, agreement=point.error)
    return AlignmentError(message, alignment)


def _alignment(
    sides: tuple[Side, Side],
    aligner: Aligner,
    found: Mapping | None,
    status: str,
    notes: list[str],
    start: float,
    training: tuple[float, float] | None,
    divergence: Diff | None,
) -> Alignment:
    unused = tuple(set(names) for names in aligner.runs.unused)
    over: list[tuple[str, ...]] = [(), ()]
    layouts, eliminated, choices, tied = {}, (), (), ()
    error, gradients = aligner.best[0], float("nan")
    if found is not None:
        pairing, layouts = found.pairing, found.assembly.layouts
        error, gradients = found.proof.outputs, found.proof.gradients
        eliminated = tuple(
            (p.left.array, p.right.array) for p in found.eliminated
        )
        paired = [
            {p.left for p in found.pairs},
            {p.right for p in found.pairs},
        ]
        for i, half in enumerate(found.arrangement.halves):
            lost = [p for p in pairing.dead[i] if p not in paired[i]]
            unused[i].update(p.array for p in lost)
            missing = {p.array for p in (*half.kept, *half.zero)}
            over[i] = tuple(sorted(missing - unused[i]))
            kept = {p.array for p in half.kept} - unused[i]
            notes += [
                f"{sides[i].label}: {name} has an effect but no counterpart; "
                "the models are equal for its present value"
                for name in sorted(kept)
            ]
            notes += _notes_on_parts(sides[i].label, lost, half.zero)
        choices = tuple(
            Choice(right.array, tuple(dict.fromkeys(p.array for p in lefts)))
            for right, lefts in pairing.choices
        )
        tied = tuple(
            (whole.array, tuple(dict.fromkeys(p.array for p in parts)))
            for whole, parts in pairing.tied
        )
    else:
        names = aligner.natural[1].names_without_counterpart()
        over = [tuple(names[0]), tuple(names[1])]
    left, right = sides
    infos = infos_of(left.model), infos_of(right.model)
    paired = pair_counters(layouts, *infos)
    layouts = {**layouts, **paired}
    sources = {name: x.sources[0].name for name, x in paired.items()}
    eliminated = (*eliminated, *((x, name) for name, x in sources.items()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cost = Cost(
        (len(left.originals), len(right.originals)),
        (left.elements, right.elements),
        aligner.cuts,
        (left.runs, right.runs),
        time.monotonic() - start,
        memory,
    )
    return Alignment(
        layouts=layouts,
        status=status,
        agreement=error,
        gradients=gradients,
        precision=aligner.runs.dtype,
        unused=(tuple(sorted(unused[0])), tuple(sorted(unused[1]))),
        eliminated=eliminated,
        left_over=over[0],
        right_over=over[1],
        constants=(
            without(left.constants, sources.values()),
            without(right.constants, paired),
        ),
        choices=choices,
        tied=tied,
        notes=tuple(notes),
        cost=cost,
        source=infos[0],
        target=infos[1],
        training=training,
        divergence=divergence,
    )


def infos_of(model: NativeModel) -> dict[str, ArrayInfo]:
    """Describes the arrays of a model."""
    return {
        name: ArrayInfo.of(array.value, array.role)
        for name, array in model.infos.items()
    }


def _notes_on_parts(label, unused, zero) -> list[str]:
    """Describes the parts of arrays that have no counterpart."""
    notes = []
    for pieces, what in (
        (unused, "has no effect and no counterpart"),
        (zero, "has no counterpart and must be zero"),
    ):
        notes += [
            f"{label}: {piece.layout} {what}"
            for piece in pieces
            if piece.layout.steps
        ]
    return notes
