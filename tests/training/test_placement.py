"""Runs on several devices and processes are the run on one device."""

import contextlib
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from common import backends, build, specs
from common.layers import BATCH_NORM_DIALECTS
from common.models import find_spec
from common.training.placement import MeshPlacement, on_the_host
from tests import topologies
from tests.training.mesh_runs import (
    CELL,
    EXAMPLES,
    SIZES,
    Cell,
    check,
    close,
    examples,
    mesh,
    on_one_device,
    raised,
    run,
    run_on_mesh,
    start,
)

TOPOLOGIES = {"8": (1, 8), "2x2": (2, 2)}

ALL: list[Cell] = [
    (model, backend, dialect, shard)
    for model in SIZES
    for backend in backends()
    for dialect in BATCH_NORM_DIALECTS
    for shard in (None, "fsdp")
]


def test_all_models_are_run():
    assert {cell[0] for cell in ALL} == set(specs())


def on_eight_devices() -> dict[str, Any]:
    """Everything that the quick tests look at, in one process."""
    return {
        "run": run(CELL, 2, mesh=mesh()),
        "wrong rows": wrong_rows(),
        "memory": memory(),
        "errors": errors(),
    }


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    [found] = topologies.run(on_eight_devices, devices=8)
    return found


def test_eight_devices_train_as_one(quick):
    check(CELL, [quick["run"]], 2)


def wrong_rows() -> np.ndarray:
    """Trains with a planted fault: a wrong row for the last example."""
    sound = MeshPlacement.data

    def data(self, data):
        found = sound(self, data)
        last = EXAMPLES - 1
        return found._replace(rows=lambda rows: rows - (rows == last))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeshPlacement, "data", data)
        return run(CELL, 2, mesh=mesh())["losses"]


def test_a_wrong_example_is_found(quick):
    expected = on_one_device(CELL, 2)["losses"]
    with pytest.raises(AssertionError, match="trajectory"):
        close(quick["wrong rows"], expected, "trajectory")


def memory() -> dict[str, Any]:
    """Looks at the buffers of a run whose parameters are split."""
    cell: Cell = ("deep_mlp", "flax", "standard", "fsdp")
    trainer = start(cell, mesh=mesh())
    xs, ys = examples(trainer)
    before = trainer._leaves
    shardings = [x.sharding for x in before]
    trainer.step(xs[:16], ys[:16])
    donated = [x.is_deleted() for x in before]
    for _ in range(100):  # XLA deadlocks if the steps do not wait
        trainer.step(xs[:16], ys[:16])
    trainer.fit(xs, ys, batch_size=16, progress=False)
    trainer.load(trainer.state())
    after = [x.sharding for x in trainer._leaves]
    return {
        "donated": donated,
        "stays": shardings == after,
        "bytes": sum(x.nbytes for x in trainer._leaves),
        "bytes of a device": sum(
            x.addressable_data(0).nbytes for x in trainer._leaves
        ),
        "split": [
            name
            for name, x in zip(
                trainer.pure.paths, trainer._leaves, strict=True
            )
            if not x.is_fully_replicated
        ],
        "state": {
            k: str(x.sharding.spec)
            for k, x in trainer._state(trainer._leaves).items()
        },
    }


def test_no_device_has_all_parameters(quick):
    found = quick["memory"]
    assert all(found["donated"])
    assert found["stays"]
    # The parameters and two moments of each are split, the rest is small.
    assert found["bytes of a device"] < 0.3 * found["bytes"]
    assert len(found["split"]) == 3 * len(parameters("deep_mlp"))
    assert found["state"]["params.head.weight"] == "P('data',)"


def parameters(model: str) -> list[str]:
    variables = find_spec(model, SIZES[model]).variables()
    return [name for name, x in variables.items() if x.trainable]


def errors() -> list[tuple[str, str]]:
    """Calls what the devices cannot do."""
    cell: Cell = ("deep_mlp", "equinox", "standard", None)
    trainer = start(cell, mesh=mesh())
    xs, ys = examples(trainer)
    calls = [
        lambda: trainer.step(xs[:12], ys[:12]),
        lambda: trainer.fit(xs, ys, batch_size=20, progress=False),
        lambda: start(("deep_mlp", "flax", "standard", odd), mesh=mesh()),
        lambda: build(
            backend="flax",
            mesh=jax.sharding.Mesh(jax.devices(), ("data",)),
            shard="fsdp",
        ).predict(np.zeros((3, 3), "float32")),
    ]
    return [raised(call) for call in calls]


def odd(name: str, shape: tuple[int, ...]) -> P:
    """A rule that splits an axis of length 8 by nothing that exists."""
    del shape
    return P("model") if name == "head.weight" else P()


def test_what_the_devices_cannot_do_is_refused(quick):
    step, fit, rule, inference = quick["errors"]
    assert step == (
        "BatchError",
        "batch size: got 12, expected a multiple of 8, the length of the "
        "mesh axis 'data'. Use another size, or another number of devices.",
    )
    assert fit == (
        "BatchError",
        "batch_size: got 20, expected a multiple of 8, the length of the "
        "mesh axis 'data'. Use another size, or another number of devices.",
    )
    assert rule[0] == "ValueError"
    assert rule[1].startswith("shard of 'head.weight' with shape (8, 8): ")
    assert inference == ("none", "")  # any number of examples


def test_a_model_is_made_elsewhere_if_jax_has_no_cpu(monkeypatch):
    def fail(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    assert isinstance(on_the_host(mesh()), type(jax.default_device(None)))
    monkeypatch.setattr(jax, "local_devices", fail)
    assert isinstance(on_the_host(mesh()), contextlib.nullcontext)


# --- the whole matrix -------------------------------------------------------

LONG = 34  # epochs of 3 steps


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("model", SIZES)
def test_a_hundred_steps_are_those_of_one_device(name, model):
    processes, devices = TOPOLOGIES[name]
    cells = [cell for cell in ALL if cell[0] == model]
    runs = topologies.run(
        run_on_mesh,
        cells,
        LONG,
        processes=processes,
        devices=devices,
        timeout=3000,
    )
    for i, cell in enumerate(cells):
        check(cell, [found[i] for found in runs], LONG)
