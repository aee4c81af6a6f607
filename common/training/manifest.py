"""What a file records of a run besides its arrays."""

import os
import warnings
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common import environment
from common.errors import StateError
from common.state import State
from common.tensors import has_nan
from common.training import identity, losses, processes
from common.training.checks import describe
from common.training.placement import ONE_DEVICE, Placement

WHOLE = 2**24
"""How many bytes of each array of a data set are hashed, at most.

They take about 20 ms. Of a larger array, evenly spaced rows are hashed.
"""

FITTED = ("batch_size", "data")
"""What a file records of the last `fit`."""

NAMED = 5
"""How many arrays a warning names."""


def manifest(trainer: Any) -> dict[str, Any]:
    """Returns values for JSON from which a trainer can be built again.

    Args:
        trainer: a `Trainer`.
    """
    subject = trainer.subject
    backend = trainer.backend
    return {
        "spec" if subject.spec else "model": trainer.name,
        "class": _class_of(subject),
        "hyper_parameters": subject.hyper_parameters,
        "backend": backend.name,
        "dtype": trainer.dtype,
        "seed": trainer.seed,
        "versions": {
            **environment.versions(),
            "safetensors": metadata.version("safetensors"),
        },
        **identity.identify(trainer),
        "order": trainer.run_key.tolist(),
        "names": {
            "loss": losses.name_of(backend.loss),
            "metrics": {
                name: losses.name_of(metric)
                for name, metric in backend.metrics.items()
            },
        },
        **trainer.fitted,
    }


class Saved(NamedTuple):
    """A run that was read.

    Attributes:
        state: its State.
        meta: what `manifest` returned when it was saved.
        what: names it in messages.
    """

    state: State
    meta: dict[str, Any]
    what: str


def read(
    path: str | os.PathLike[str], placement: Placement = ONE_DEVICE
) -> Saved:
    """Reads a run that was saved.

    The arrays of a file are verified, and read when they are used.

    Args:
        path: as for `State.read`.
        placement: where the arrays of a checkpoint belong. On a mesh, they
            are read straight onto its devices, each of which reads its part.

    Raises:
        StateError: if it was damaged, or is none.

    Warns:
        UserWarning: naming the arrays of the model or of the optimizer that
            have NaN in them. Such a run is read, because training may have
            produced it.
    """
    if placement.processes > 1:
        _require_same_kind(path)
    if os.path.isdir(path):
        state, meta = State.read(path, **_options(placement))
    else:
        state, meta = placement.together(lambda: State.open(path))
    kind = "checkpoints" if os.path.isdir(path) else "state file"
    what = f"{kind} {os.fspath(path)!r}"
    nans = _find_nans(
        {
            (group, name): x
            for group in ("params", "buffers", "opt")
            for name, x in getattr(state, group).items()
        }
    )
    if nans:
        more = f" and {len(nans) - NAMED} more" if len(nans) > NAMED else ""
        warnings.warn(
            f"{what}: got NaN in {', '.join(map(repr, nans[:NAMED]))}{more}, "
            "expected numbers. Every loss will be NaN; load an earlier file "
            "of the run, or another one.",
            stacklevel=3,
        )
    return Saved(state, meta, what)


def _find_nans(arrays: dict[tuple[str, str], Any]) -> list[str]:
    """Returns the names of the arrays that have NaN in them."""
    split = {k: x for k, x in arrays.items() if isinstance(x, jax.Array)}
    found = {}
    if split:
        with jax.enable_x64(True):
            found = _have_nan(split)
    return [
        key[1]
        for key, x in arrays.items()
        if (found[key] if key in found else has_nan(np.asarray(x)))
    ]


@jax.jit
def _have_nan(arrays: dict[Any, Any]) -> dict[Any, Any]:
    return {name: jnp.any(x != x) for name, x in arrays.items()}


def _options(placement: Placement) -> dict[str, Any]:
    """Returns how `checkpoints.read` reads the arrays of a run on a mesh."""
    if placement.state is None:
        return {}
    shardings = {
        name: sharding
        for name, sharding in placement.state.items()
        if name.partition(".")[0] not in ("rng", "step")
    }
    several = placement.processes > 1
    gather = processes.gather if several else None
    return {"shardings": shardings, "gather": gather}


def _require_same_kind(path: str | os.PathLike[str]) -> None:
    """Checks that all processes see the same at a path.

    Raises:
        StateError: in all of them, if they do not.
    """
    kind = "a folder" if os.path.isdir(path) else "a file"
    kind = kind if os.path.exists(path) else "nothing"
    first, *others = processes.gather(kind)
    for process, other in enumerate(others, 1):
        if other != first:
            raise StateError(
                f"path {os.fspath(path)!r}: got {other} in process {process}, "
                f"expected {first} as in process 0. Pass a path that all "
                "processes share."
            )


def _class_of(subject: Any) -> str:
    if subject.spec is not None:
        return class_path(type(subject.spec))
    native = subject.model.native
    return class_path(type(native[0] if isinstance(native, tuple) else native))


def class_path(cls: type) -> str:
    """Returns the module and the name of a class, with a dot between."""
    return f"{cls.__module__}.{cls.__qualname__}"


def fitted(
    inputs: Any,
    targets: Any,
    batch_size: int,
    placement: Placement = ONE_DEVICE,
) -> dict[str, Any]:
    """Returns what a file records of the data that `fit` trains on.

    It is the same for the same examples, however many processes have them.

    Args:
        inputs: all examples, or those of this process.
        targets: the targets, one for each example.
        batch_size: the number of examples in a step.
        placement: joins what the processes have.
    """
    count = placement.processes
    arrays = jax.tree.leaves((inputs, targets))
    digest = identity.digest(_sample(x, placement) for x in arrays)
    inputs, targets = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (count * len(x), *x.shape[1:]), x.dtype
        ),
        (inputs, targets),
    )
    data = (
        f"(inputs={describe(inputs)}, targets={describe(targets)}, "
        f"sha256={digest})"
    )
    return dict(zip(FITTED, (int(batch_size), data), strict=True))


def _sample(x: Any, placement: Placement) -> np.ndarray:
    """Returns rows of an array, evenly spaced if they are many."""
    x = np.asarray(x)
    step = max(-(-x.nbytes * placement.processes // WHOLE), 1)
    before = placement.process * len(x)  # rows in the processes before
    return placement.joined(x[-before % step :: step])
