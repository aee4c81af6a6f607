"""A run that moves between topologies keeps its trajectory.

It starts on one device, and continues on 8 devices of one process, on 2
processes of 2 devices, and on one device again. Each time it resumes from a
checkpoint within an epoch.
"""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from common import agreement, build, checkpoints, load
from common.models import specs
from common.registry import backends
from tests import topologies

SIZE, BATCH = 20, 8  # two steps in an epoch, and four examples left
STAGES = ((1, 1), (1, 8), (2, 2), (1, 1))
"""Processes, and devices of each."""

EIGHT: dict[str, dict[str, Any]] = {
    "stateful_mlp": {"hidden_size": 8},
    "digits_cnn": {"channels": (2, 8)},
    "deep_mlp": {"depth": 1, "size": 8},
}
"""Sizes of which 8 devices can have a part each."""


def make(model: str, backend: str, mesh: Any = None) -> Any:
    shard = None if mesh is None else "fsdp"
    return build(
        model,
        backend=backend,
        dtype="float64",
        mesh=mesh,
        shard=shard,
        **EIGHT.get(model, {}),
    )


def train(cells: Any, data: Any, folder: str, epochs: int) -> dict[Any, Any]:
    """Continues some runs on all devices, and leaves an epoch unfinished."""
    mesh = None
    if jax.device_count() > 1:
        mesh = jax.make_mesh((jax.device_count(),), ("data",))
    count, index = jax.process_count(), jax.process_index()
    found = {}
    for model, backend in cells:
        run = pathlib.Path(folder, f"{model}-{backend}")
        trainer = make(model, backend, mesh)
        mine = [np.split(x, count)[index] for x in data[model]]
        losses = trainer.fit(
            *mine,
            epochs=epochs,
            batch_size=BATCH,
            progress=False,
            checkpoint=run,
            every=1,
            keep=2,
            resume=True,
        )
        steps = checkpoints.steps(run)
        assert trainer.state().step == trainer.steps_taken == steps[-1]
        split = sum(
            not x.sharding.is_fully_replicated
            for x in trainer.canonical().values()
            if isinstance(x, jax.Array)
        )
        found[model, backend] = losses, steps, split
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize("cells", ["one", "all"])
def test_a_run_moves_between_topologies(cells, make_batch, tmp_path):
    names = {
        "one": [("deep_mlp", "reference")],
        "all": [(m, b) for m in specs() for b in backends()],
    }[cells]
    data = {
        model: make_batch(make(model, "reference").spec, size=SIZE)
        for model in {model for model, _ in names}
    }
    stages = [x for x in STAGES if cells == "all" or x != (1, 8)]
    losses = {cell: [] for cell in names}
    for number, (processes, devices) in enumerate(stages):
        call = (names, data, str(tmp_path), number + 1)
        if (processes, devices) == (1, 1):
            results = [train(*call)]
        else:
            results = topologies.run(
                train, *call, processes=processes, devices=devices
            )
        for cell in names:
            (mine, steps, split), *others = (x[cell] for x in results)
            for other in others:
                assert np.array_equal(mine, other[0])
            assert (split > 0) == (devices > 1)
            end = 2 * (number + 1)
            assert steps == [end - 1, end]
            if number < len(stages) - 1:
                # The next stage resumes from the step before.
                run = tmp_path / "-".join(cell)
                shutil.rmtree(run / str(end))
                mine = mine[:-1]
            losses[cell].append(mine)
    bound = agreement.tolerance("float64", "trajectory")
    for (model, backend), parts in losses.items():
        whole = make(model, backend)
        options: Any = {"batch_size": BATCH, "progress": False}
        expected = whole.fit(*data[model], epochs=len(stages), **options)
        found = np.concatenate(parts)
        assert found.shape == expected.shape == (2 * len(stages),)
        errors = np.abs(found - expected) / np.abs(expected)
        assert errors.max() <= bound, (model, backend, errors)
        assert np.ptp(expected) > 0
        # Other libraries, and what needs no mesh, read what was written.
        run = tmp_path / f"{model}-{backend}"
        again = load(run, backend="reference")
        assert again.steps_taken == 2 * len(stages)
