"""Checks of the settings of `build` that split a batch or repeat a model."""

from typing import Any

import jax
import numpy as np

from common.errors import BatchError
from common.models.checks import is_int
from common.protocol import Settings
from common.training.checks import (
    batch_size_of,
    check_seed,
    require_one_size,
)


def check_accumulate(accumulate: Any) -> int:
    """Returns the number of parts of a batch as a Python int.

    Raises:
        ValueError: if it is not an integer of 1 or more.
    """
    if not _is_count(accumulate):
        raise ValueError(
            f"accumulate: got {accumulate!r}, expected an integer of 1 or "
            "more. Pass the number of parts of a batch, or leave it out."
        )
    return int(accumulate)


def check_ensemble(
    ensemble: Any, model: Any = None, mesh: Any = None
) -> int | None:
    """Returns the number of members as a Python int, or `None`.

    Args:
        ensemble: the argument of `build`.
        model: the model of the user, or a list of one for each member.
        mesh: the devices, if there are several.

    Raises:
        ValueError: if it is not an integer of 1 or more, if there is another
            number of models, or if the mesh spans several processes.
    """
    if not (ensemble is None or _is_count(ensemble)):
        raise ValueError(
            f"ensemble: got {ensemble!r}, expected an integer of 1 or more. "
            "Pass the number of members, or leave it out for one model."
        )
    if isinstance(model, list) and len(model) != ensemble:
        raise ValueError(
            f"ensemble: got {ensemble!r} with a list of {len(model)} models, "
            f"expected {len(model)}. Pass one model for each member, or one "
            "model from which all members start."
        )
    if ensemble is not None and mesh is not None and mesh.is_multi_process:
        raise ValueError(
            f"ensemble: got {ensemble} on a mesh of several processes, "
            "expected one process. Train members in separate runs."
        )
    return None if ensemble is None else int(ensemble)


def check_seeds(seed: Any, ensemble: int | None) -> int:
    """Returns the seed of a trainer, which is that of its first member.

    Raises:
        ValueError: if it, or the seed of another member, is not an integer of
            32 bits.
    """
    seed = check_seed(seed)
    if ensemble is not None and seed + ensemble > 2**32:
        raise ValueError(
            f"seed: got {seed} for {ensemble} members, expected an int from "
            f"0 to {2**32 - ensemble}, because member i has the seed "
            "`seed + i`. Pass a `seed` in this range."
        )
    return seed


def check_sync_batch_norm(sync_batch_norm: Any) -> bool:
    """Returns whether the devices of a mesh share their batch statistics.

    Raises:
        ValueError: if it is not a `bool`.
    """
    if not isinstance(sync_batch_norm, bool | np.bool_):
        raise ValueError(
            f"sync_batch_norm: got {sync_batch_norm!r}, expected True or "
            "False. Pass False for the statistics of each device alone."
        )
    return bool(sync_batch_norm)


def require_no_user_step(name: str, settings: Settings) -> None:
    """Checks the settings of a model with a training step of its own.

    Raises:
        ValueError: naming a setting that needs the step of this project.
    """
    changed = {
        f"accumulate={settings.accumulate}": settings.accumulate > 1,
        "sync_batch_norm=False": not settings.sync_batch_norm,
    }
    for setting, is_set in changed.items():
        if is_set:
            raise ValueError(
                f"build: got {setting} with a step of {name}, expected none, "
                "because the step itself calls the model and the optimizer. "
                "Leave it out, and split the batch within the step."
            )


def check_parts(
    what: str, size: int, settings: Settings, min_batch_size: int = 1
) -> None:
    """Checks that a batch can be split as the settings say.

    Args:
        what: what a message calls the size.
        size: the number of examples in the batch of all processes.
        settings: how many parts and groups there are.
        min_batch_size: the smallest batch that the model can be trained on.

    Raises:
        BatchError: with the sizes of the batch and of its parts.
    """
    parts, groups = settings.accumulate, settings.groups
    count = parts * groups
    if count == 1:
        return
    why = f"accumulate={parts}"
    if groups > 1:
        why = f"{groups} devices with sync_batch_norm=False"
        if parts > 1:
            why = f"accumulate={parts} times {why}"
    if size % count:
        raise BatchError(
            f"{what}: got {size} examples, expected a multiple of {count} "
            f"for {why}. Use another size, or another number of parts."
        )
    if size // count < min_batch_size:
        raise BatchError(
            f"{what}: got {size} examples, which are {size // count} in each "
            f"part for {why}, expected at least {min_batch_size} in each, "
            "because a BatchNorm needs a batch variance. Use a larger batch, "
            "or fewer parts."
        )


def check_batch(
    batch: Any, settings: Settings, min_batch_size: int, processes: int = 1
) -> None:
    """Checks that a batch of arrays can be split as the settings say.

    Args:
        batch: `(xs, ys)`, of this process.
        settings: how many parts and groups there are.
        min_batch_size: the smallest batch that the model can be trained on.
        processes: how many processes have a batch of this size.

    Raises:
        BatchError: if it cannot be split, or if its arrays do not have the
            same number of examples.
    """
    if settings.accumulate * settings.groups == 1:
        return
    if jax.tree.leaves(batch):
        require_one_size("inputs and targets", batch)
        size = batch_size_of(batch) * processes
        check_parts("batch", size, settings, min_batch_size)


def _is_count(x: Any) -> bool:
    return (is_int(x) or isinstance(x, np.integer)) and int(x) >= 1
