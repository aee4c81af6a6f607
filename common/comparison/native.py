"""`compare` for models without a trainer."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from common import agreement
from common.agreement import EPS
from common.comparison import halves, location, mapping, objectives
from common.comparison.duel import Duel, Failure
from common.comparison.inspection import (
    draws_of,
    inspect_arrays,
    precision_of,
    require_draws_of_one,
)
from common.comparison.mapping import Mapping, Models
from common.comparison.programs import SIDES, Program
from common.comparison.report import Report
from common.comparison.rows import ORDER, Location, Place, Row
from common.environment import flag
from common.layouts import Role
from common.native import Call, NativeModel
from common.porting.arrays import on_host
from common.protocol import Loss
from common.training import checks


def compare_models(
    left: Any,
    right: Any,
    inputs: tuple[Any, Any],
    ys: Any,
    *,
    calls: tuple[Call | None, Call | None] = (None, None),
    rules: Any = None,
    loss: str | Loss | None = None,
    right_loss: Loss | None = None,
    optimizer: optax.GradientTransformation | None = None,
    right_optimizer: optax.GradientTransformation | None = None,
    steps: int = 10,
    carry: bool = False,
    batch_norm: str | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Report:
    """Compares two models; `common.compare` calls it.

    Args:
        left: an Equinox model, a pair with its state, or an NNX module.
        right: another one.
        inputs: the batch of inputs of each model.
        ys: the targets, or `None`.
        calls: how to call each model, or `None`.
        rules: the mapping between their arrays.
        loss: of outputs and targets.
        right_loss: that of the right model, if it has another one.
        optimizer: an optax transformation; Adam by default.
        right_optimizer: that of the right model, if it has another one.
        steps: the number of training steps.
        carry: whether the models' own arrays may differ.
        batch_norm: as for `port`.
        tick: a function to call after every step in each dtype.

    Raises:
        TypeError: if a model cannot be called.
        ValueError: if the arrays do not match, or the outputs do not.
    """
    checks.check_steps(steps)
    models = NativeModel(left, calls[0]), NativeModel(right, calls[1])
    found = mapping.mapping_of((left, right), calls, inputs, rules, batch_norm)
    if not carry:  # then the right's own counters are judged
        found = dataclasses.replace(found, derived={})
    objective, described = objectives.find_objective(loss, ys)
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    both_losses = objective, right_loss or objective
    optimizers = optimizer, right_optimizer or optimizer
    own, wide = model_dtype(models), _has_float64(models)
    labels = _labels(models)
    notes = [f"arrays matched by {found.origin}", f"loss: {described}"]
    notes += [*found.notes, *_role_notes(models, found)]
    duels, place = [], Location()
    for dtype in dict.fromkeys(("float64", own)):
        with _precise(dtype, wide):
            duel, said = _prepare(
                models,
                calls,
                labels,
                found,
                halves.cast(
                    (*inputs, ys), "float64" if dtype == "float64" else None
                ),
                dtype,
                own,
                both_losses,
                optimizers,
                steps,
            )
            notes += [note for note in said if note not in notes]
            duel.run(tick)
            notes += _unchanged_buffers(duel, notes)
        duels.append(duel)
    rows = [row for duel in duels for row in duel.rows]
    state, differing = _state_row(models, found, labels, own)
    failures = [duel.failure for duel in duels if duel.failure is not None]
    if carry:
        notes.append("both start from the arrays of the left")
        if found.derived:
            names = _some(list(found.derived))
            notes.append(f"set on the right, as `port` sets them: {names}")
    else:
        rows.append(state)
        if state.first is not None:
            notes.append(
                f"{_differ(len(differing))}; the other rows start from "
                "those of the left on both sides. Port them, or compare with "
                "`carry=True` to leave the arrays out"
            )
    if not carry and state.first is not None:
        place = location.of_state(state, differing)
    elif failures:
        failure = min(failures, key=lambda failure: _step(failure))
        duel = next(d for d in duels if d.failure is failure)
        with _precise(duel.dtype, wide):
            place = location.locate(duel, failure, own)
    rows.sort(key=lambda row: ORDER.index(row.quantity))
    return Report(
        spec=None,
        hyper_parameters={},
        dtype=" and ".join(duel.dtype for duel in duels),
        steps=steps,
        seed=None,
        pairs=[labels],
        rows=rows,
        losses={
            name: values
            for duel in duels[:1]
            for name, values in duel.losses.items()
        },
        models=_class_names(models),
        notes=notes,
        location=place,
    )


def model_dtype(models: Sequence[NativeModel]) -> str:
    """Returns the narrowest dtype of the models' floating parameters."""
    dtypes = {
        info.value.dtype.name
        for model in models
        for info in model.infos.values()
        if mapping.is_parameter(info) and info.value.dtype.name in EPS
    }
    return max(dtypes, key=lambda name: EPS[name], default="float32")


def _prepare(
    models: Models,
    calls: tuple[Call | None, Call | None],
    labels: tuple[str, str],
    found: Mapping,
    data: tuple[Any, Any, Any],
    dtype: str,
    model_dtype: str,
    losses: tuple[Loss, Loss],
    optimizers: Sequence[optax.GradientTransformation],
    steps: int,
) -> tuple[Duel, list[str]]:
    """Traces both models, and decides what is compared and how precisely."""
    both = halves.make_halves(
        models, calls, labels, found, "float64" if dtype == "float64" else None
    )
    programs = tuple(
        Program(half, side, (xs, data[2]), loss, optimizer)
        for half, side, xs, loss, optimizer in zip(
            both, SIDES, data[:2], losses, optimizers, strict=True
        )
    )
    notes = _match_outputs(programs)
    notes += [
        f"constants on the {side}, because the model needs to know values of "
        f"arrays while it is traced: {_some(half.held)}"
        for half, side in zip(both, SIDES, strict=True)
        if half.held
    ]
    inferences = [p.inference for p in programs]
    notes += draws_of(labels, inferences, "inference")
    require_draws_of_one(inferences)
    inspections = [p.trace_step(True, EPS[dtype]) for p in programs]
    draws = draws_of(labels, inspections, "training")
    training = not draws
    held = [
        inspect_arrays({n: x for n, x in p.held().items() if not has(n)})
        for p, has in zip(
            programs, (found.targets, found.layouts.get), strict=True
        )
    ]
    precision, said = precision_of(
        labels,
        list(zip(inferences, inspections, held, strict=True)),
        dtype,
        model_dtype,
    )
    if draws or precision != dtype:
        for program in programs:
            program.trace_step(training, EPS[precision])
    if draws:
        notes += draws
        notes.append(
            "left out: outputs and buffers in training mode; gradients and "
            "training steps are those in inference mode"
        )
    duel = Duel(
        (programs[0], programs[1]),
        found,
        dtype,
        precision,
        steps,
        pooled=dtype != "float64",
    )
    return duel, notes + said


def _match_outputs(programs: Sequence[Program]) -> list[str]:
    """Pairs the outputs of both models.

    Raises:
        ValueError: if one has more outputs than the other.
    """
    left, right = (program.outputs for program in programs)
    if len(left) != len(right):
        raise ValueError(
            f"outputs: got {len(left)} arrays on the left and {len(right)} "
            "on the right, expected as many. Pass `left_call` or "
            "`right_call`, which return the outputs that correspond."
        )
    if left == right:
        return []
    programs[1].outputs = left
    return ["the outputs are in different containers, and paired in order"]


def _unchanged_buffers(duel: Duel, notes: Sequence[str]) -> list[str]:
    left, right = duel.halves
    buffers = halves.comparable_rest(duel.mapping, left, right)
    note = "no buffer was changed by training on either side"
    if not (buffers and duel.training and duel.kept_buffers) or note in notes:
        return []
    return [note]


def _role_notes(models: Models, found: Mapping) -> list[str]:
    """Says which arrays are trained on one side, or have no counterpart."""
    left, right = models
    trained = set(found.trained(left, right))
    notes = []
    for side, model, has in (
        ("left", left, found.targets),
        ("right", right, found.layouts.get),
    ):
        alone = [
            name
            for name, info in model.infos.items()
            if info.role in (Role.PARAMETER, Role.BUFFER) and not has(name)
        ]
        if alone:
            notes.append(
                f"without a counterpart, and left as they are, on the {side}: "
                f"{_some(alone)}"
            )
    ours = [
        name
        for name, info in left.infos.items()
        if mapping.is_parameter(info)
        and name not in trained
        and found.targets(name)
    ]
    theirs = [
        name
        for name, info in right.infos.items()
        if mapping.is_parameter(info)
        and name in found.layouts
        and not set(found.sources(name)) & trained
    ]
    for side, names in (("left", ours), ("right", theirs)):
        if names:
            notes.append(
                f"parameters on the {side} only, which are not trained here: "
                f"{_some(names)}"
            )
    return notes


def _state_row(
    models: Models, found: Mapping, labels: tuple[str, str], model_dtype: str
) -> tuple[Row, dict[str, Any]]:
    """Compares the models' own arrays, bit for bit.

    Returns:
        The row, and the arrays that differ, of the left and the right.
    """
    left, right = (on_host(model.arrays()) for model in models)
    pairs = {
        found.label_right(name): (layout.apply(left), right[name])
        for name, layout in found.layouts.items()
        if models[1].infos[name].role is not Role.RANDOM_STATE
    }
    kinds = ({n: x[i] for n, x in pairs.items()} for i in (0, 1))
    errors = agreement.relative_errors(*map(halves.host, kinds))
    differing = {name: pairs[name] for name, error in errors.items() if error}
    name = max(errors, key=lambda name: errors[name], default="")
    worst = Place(0, name if differing else "", errors.get(name, 0.0))
    first = next(iter(differing), None)
    place = None if first is None else Place(0, first, errors[first])
    return Row("state", *labels, worst, 0.0, place, model_dtype), differing


def _has_float64(models: Models) -> bool:
    """Tells whether some array of a model needs JAX's 64-bit types."""
    return any(
        info.value.dtype == np.float64
        for model in models
        for info in model.infos.values()
    )


@contextlib.contextmanager
def _precise(dtype: str, wide: bool) -> Iterator[None]:
    """Sets up JAX for a comparison.

    Args:
        dtype: of the comparison.
        wide: whether the models have arrays of float64, beside others in the
            models' own dtype.
    """
    with (
        jax.enable_x64(wide or dtype == "float64"),
        jax.default_matmul_precision("highest"),
        jax.default_device(flag("jax_default_device")),
    ):
        yield


def _labels(models: Models) -> tuple[str, str]:
    left, right = (model.library for model in models)
    if left == right:
        return f"{left} (left)", f"{right} (right)"
    return left, right


def _class_names(models: Models) -> tuple[str, str]:
    natives = [model.native for model in models]
    left, right = (x[0] if isinstance(x, tuple) else x for x in natives)
    return type(left).__name__, type(right).__name__


def _step(failure: Failure) -> int:
    return failure.place.step


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _differ(number: int) -> str:
    return "1 array differs" if number == 1 else f"{number} arrays differ"
