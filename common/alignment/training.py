"""Compares two models in training mode through a mapping."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.alignment.aligner import Mapping
from common.alignment.fill import random_like
from common.alignment.proof import DRAWS
from common.alignment.sides import Side, is_key, precise
from common.alignment.ties import carried_values
from common.layouts import Role


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
        first = _train(sides[0], left)
        second = _train(sides[1], right)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        return None, [
            "training mode was not compared: calling a model raised "
            f"{type(error).__name__} ({text[:120]})"
        ]
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


def _train(side: Side, arrays: dict[str, np.ndarray]):
    """Calls a model in training mode."""
    flags = {
        name: np.zeros_like(np.asarray(info.value))
        for name, info in side.model.infos.items()
        if info.role is Role.BUFFER and info.value.dtype == bool
    }

    def call(arrays, xs, key):
        outputs, new = side.model.apply(
            {**flags, **side.counters, **arrays}, xs, training=True, key=key
        )
        leaves = [
            x
            for x in jax.tree.leaves(outputs)
            if hasattr(x, "dtype") and not is_key(x)
        ]
        return leaves, {name: new[name] for name in _buffers(side)}

    with precise():
        # A module cannot write a traced value into an array of NumPy.
        flags = {name: jnp.asarray(flag) for name, flag in flags.items()}
        given = {n: jnp.asarray(arrays[n], jnp.float64) for n in arrays}
        try:
            outputs, new = jax.jit(call)(given, side.xs, None)
        except Exception:
            outputs, new = jax.jit(call)(given, side.xs, jr.key(0))
    return (
        [np.asarray(x).reshape(-1) for x in outputs],
        {name: np.asarray(x) for name, x in new.items()},
    )


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
