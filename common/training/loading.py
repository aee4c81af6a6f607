"""`load`: builds the trainer of a run that was saved."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from common.errors import StateError
from common.models import SPECS, find_spec
from common.protocol import NUMERICAL, Loss, Spec
from common.state import State
from common.training.building import build
from common.training.manifest import class_path, read
from common.training.recorded_optimizers import find_optimizer
from common.training.trainer import Trainer

NEEDED = ("hyper_parameters", "dtype", "seed", "optimizer", "loss")


def load(
    path: str | os.PathLike[str],
    *,
    backend: str,
    optimizer: Any = None,
    loss: str | Loss | None = None,
    metrics: str | Sequence[str] | Mapping[str, str | Loss] | None = None,
    mesh: Mesh | None = None,
    shard: Any = None,
) -> Trainer:
    """Builds the trainer of a saved run, which continues in any backend.

    The file says which spec it was, its hyper-parameters, dtype and seed,
    the settings of `build` that change the numbers, and the optimizer, loss,
    metrics and batch size:

        trainer = load("run.safetensors", backend="flax")

    A file can name what this project and optax define. Pass what you wrote
    yourself again: a loss or a metric, and an optimizer unless it is the
    spec's default or one of optax that was made with a learning rate only.
    For a model of yours, or the spec of another package, build a trainer and
    call its `load`.

    Args:
        path: a file that `Trainer.save` wrote, a checkpoint that
            `Trainer.fit` wrote, or the folder of its checkpoints, of which
            the newest is read.
        backend: a name from `backends()`; it need not be the one that wrote
            the file.
        optimizer: the optimizer, if the file does not determine it.
        loss: the loss, if the file does not determine it.
        metrics: the metrics, if the file does not determine them.
        mesh: the devices to continue on, as for `build`. They need not be
            those of the run that wrote the file.
        shard: how parameters are split over them, as for `build`.

    Returns:
        A trainer in the state of the file.

    Raises:
        StateError: if the file was damaged, or is not of a registered spec.
        ValueError: naming what the file does not determine and was not
            passed.

    Warns:
        UserWarning: if what was passed differs from what the file records,
            or if an array of the run has NaN in it.
    """
    saved = read(path)
    spec = _find_spec(saved.what, saved.meta, saved.state)
    meta = saved.meta
    names = meta.get("names")
    names = names if isinstance(names, dict) else {}
    if optimizer is None:
        optimizer = find_optimizer(str(meta["optimizer"]), spec.optimizer())
        _require(saved.what, "optimizer", optimizer, meta["optimizer"])
    if loss is None:
        loss = names.get("loss", meta["loss"])
        _require(saved.what, "loss", loss, meta["loss"])
    if metrics is None:
        recorded = meta.get("metrics") or {}
        metrics = dict(names.get("metrics", recorded))
        for name, metric in metrics.items():
            what = f"metric {name!r}"
            _require(saved.what, what, metric, recorded.get(name), "metrics")
    trainer = build(
        spec,
        backend=backend,
        optimizer=optimizer,
        loss=loss,
        metrics=metrics,
        seed=meta["seed"],
        dtype=meta["dtype"],
        mesh=mesh,
        shard=shard,
        **{name: meta[name] for name in NUMERICAL if name in meta},
    )
    return trainer.load(saved)


def _require(
    what: str, part: str, found: Any, recorded: Any, argument: str = ""
) -> None:
    if found is None:
        raise ValueError(
            f"{part} of {what}: got {recorded}, which a file cannot hold, "
            f"expected it as an argument. Pass `{argument or part}=` what "
            "the run was built with."
        )


def _find_spec(what: str, meta: Mapping[str, Any], state: State) -> Spec:
    """Returns the spec of a saved run.

    Raises:
        StateError: if it is not a registered one, or its arrays have other
            shapes than the saved ones.
    """
    name = meta.get("spec")
    own = f"a model of the class {meta.get('class', meta.get('model'))}"
    if isinstance(name, str) and name not in SPECS:
        own = f"the spec {name!r}"
    known = SPECS.get(name) if isinstance(name, str) else None
    if known is None or meta.get("class") not in (None, class_path(known)):
        raise StateError(
            f"{what}: got {own}, expected a spec of "
            f"{', '.join(SPECS)}. Build its trainer with `build`, and call "
            "`Trainer.load` with this path."
        )
    missing = [key for key in NEEDED if key not in meta]
    if missing:
        raise StateError(
            f"{what}: got a header without {', '.join(missing)}, expected "
            f"{', '.join(NEEDED)}. Build its trainer with `build`, and call "
            "`Trainer.load` with this path."
        )
    given = meta["hyper_parameters"]
    arrays = {**state.params, **state.buffers}
    largest = sum(math.prod(x.shape) for x in arrays.values())
    if not isinstance(given, dict) or _largest(given) > largest:
        raise StateError(
            f"{what}: got the hyper-parameters {given}, expected those of a "
            f"model of {largest} numbers. Save the run again, or use a copy."
        )
    spec = find_spec(str(name), given)
    expected = {n: tuple(x.shape) for n, x in spec.variables().items()}
    start = 0 if meta.get("ensemble") is None else 1
    got = {n: x.shape[start:] for n, x in arrays.items()}
    wrong = sorted(
        n for n in {**expected, **got} if got.get(n) != expected.get(n)
    )
    if wrong:
        name = wrong[0]
        raise StateError(
            f"{what}: got the shape {got.get(name)} of {name!r}, expected "
            f"{expected.get(name)}, as the hyper-parameters in its header "
            "say. Save the run again, or use a copy."
        )
    return spec


def _largest(x: Any) -> int:
    """Returns the largest integer in a value from JSON."""
    if isinstance(x, dict):
        return max(map(_largest, x.values()), default=0)
    if isinstance(x, list):
        return max(map(_largest, x), default=0)
    return x if isinstance(x, int) else 0
