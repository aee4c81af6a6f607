"""Compares two models in training mode through a mapping."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.alignment.aligner import Mapping
from common.alignment.fill import random_like
from common.alignment.proof import DRAWS
from common.alignment.sides import Side, precise
from common.alignment.ties import carried_values
from common.divergence.sources import error_frames
from common.layouts import Role
from common.layouts.model import is_key
from common.native import is_weak_counter, recast_counter

MAX_TEXT = 300
"""How much of the message of an error is shown, in characters."""


def prove_training(
    sides: tuple[Side, Side],
    found: Mapping,
    tolerance: Callable[[str], float],
) -> tuple[tuple[float, float] | None, list[str]]:
    """Compares outputs and updated buffers, with random weights.

    Args:
        sides: both models.
        found: the mapping.
        tolerance: returns the bound for a quantity.

    Returns:
        The relative errors of the outputs and of the buffers, or `None` if
        there is nothing to compare, and what the user should know.
    """
    buffers = [_buffers(side) for side in sides]
    pairs = {
        name: layout
        for name, layout in found.assembly.layouts.items()
        if name in buffers[1]
        and all(source.name in buffers[0] for source in layout.sources)
    }
    if not pairs:
        return None, []
    rng = np.random.default_rng(DRAWS + 1)
    values = carried_values(
        found.pairs, lambda piece: random_like(piece.values(0), rng)
    )
    left = found.arrangement.left.fill(sides[0].originals, 0, values[0])
    right = found.arrangement.right.fill(sides[1].originals, 0, values[1])
    for name, layout in found.assembly.layouts.items():
        right[name] = np.asarray(layout.apply(left))
    try:
        first, second = _train(sides[0], left), _train(sides[1], right)
    except CallError as error:
        return None, [f"training mode was not compared: {error}"]
    errors = [_error(a, b) for a, b in zip(first[0], second[0], strict=False)]
    outputs = max(errors, default=0.0)
    worst, notes = 0.0, []
    for name, layout in pairs.items():
        mine = np.asarray(layout.apply(first[1]))
        theirs = second[1][name]
        error = _error(mine, theirs)
        worst = max(worst, error)
        if error > tolerance("outputs"):
            before = right[name]
            notes.append(
                f"training mode: the updated {name} differs by {error:.2g}"
                + _ratio(mine - before, theirs - before)
            )
    if outputs > tolerance("outputs"):
        notes.append(
            f"training mode: the outputs differ by {outputs:.2g}, for "
            "example because the models draw random numbers"
        )
    return (outputs, worst), _shortened(notes)


def _buffers(side: Side) -> set[str]:
    infos = side.model.infos
    return {n for n in side.originals if infos[n].role is Role.BUFFER}


class CallError(Exception):
    """A model raised an error when it was called in training mode."""

    def __init__(self, side: Side, error: BaseException):
        lines = [f for f in error_frames(error) if not f.in_library]
        text = " ".join(str(error).split())
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]} ..."
        place = f", at {lines[0]}" if lines else ""
        super().__init__(
            f"calling the {side.label} model raised {type(error).__name__} "
            f"({text}){place}"
        )


def _train(side: Side, arrays: dict[str, np.ndarray]):
    """Calls a model in training mode, with a random key if it takes one.

    Raises:
        CallError: if the model raises an error.
    """
    flags = {
        name: np.zeros_like(np.asarray(info.value))
        for name, info in side.model.infos.items()
        if info.role is Role.BUFFER and info.value.dtype == bool
    }
    weak = {
        name: info.value
        for name, info in side.model.infos.items()
        if is_weak_counter(info.value)
    }
    names = _buffers(side)

    def call(arrays, xs, key):
        return side.model.apply(
            {**flags, **side.counters, **arrays}, xs, training=True, key=key
        )

    with precise():
        # A module cannot write a traced value into an array of NumPy.
        flags = {name: jnp.asarray(flag) for name, flag in flags.items()}
        flags |= {n: recast_counter(x) for n, x in weak.items()}
        given = {n: jnp.asarray(arrays[n], jnp.float64) for n in arrays}
        key = jr.key(0)
        try:
            traced = jax.jit(call).trace(given, side.xs, key)
        except Exception as error:  # the user's model may raise anything
            raise CallError(side, error) from error
        compiled = traced.lower().compile()
        try:
            outputs, new = jax.block_until_ready(compiled(given, side.xs, key))
        except RuntimeError as error:  # a check of values, as of Equinox
            raise CallError(side, error) from error
    leaves = [
        np.asarray(x).reshape(-1)
        for x in jax.tree.leaves(outputs)
        if hasattr(x, "dtype") and not is_key(x)
    ]
    return leaves, {name: np.asarray(new[name]) for name in names}


def _error(a: np.ndarray, b: np.ndarray) -> float:
    if a.size != b.size:
        return np.inf
    scale = max(
        float(np.max(np.abs(a), initial=0)),
        float(np.max(np.abs(b), initial=0)),
    )
    return float(np.max(np.abs(a - b), initial=0)) / (scale or 1.0)


def _ratio(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Says by which factor all updates differ, if there is one."""
    theirs = np.where(np.abs(theirs) > 0, theirs, np.nan)
    ratios = mine / theirs
    mean = float(np.nanmean(ratios)) if ratios.size else np.nan
    if not np.isfinite(mean) or np.nanstd(ratios) > 1e-3 * abs(mean):
        return ""
    return f": the left update is {mean:.6g} times the right one"


def _shortened(notes: list[str], most: int = 4) -> list[str]:
    if len(notes) <= most:
        return notes
    return [*notes[:most], f"and {len(notes) - most} more differences"]
