"""Processes that share a mesh: what they agree on, and what they raise."""

import pathlib
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from common import build, load
from tests import topologies
from tests.training import user_models
from tests.training.mesh_runs import (
    CELL,
    check,
    close,
    masks_on_mesh,
    mesh,
    part,
    raised,
    run,
)
from tests.training.test_dropout_masks import masks


def on_two_processes(folder: pathlib.Path) -> dict[str, Any]:
    return {
        "run": run(CELL, 2, mesh=mesh()),
        "saved": save(folder),
        "disagreements": disagreements(),
    }


def more_on_two_processes() -> dict[str, Any]:
    return {
        "masks": masks_on_mesh(),
        "own": own_models(mesh=mesh()),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def runs(folder) -> list[dict[str, Any]]:
    return topologies.run(on_two_processes, folder, processes=2, devices=2)


@pytest.fixture(scope="module")
def more_runs() -> list[dict[str, Any]]:
    return topologies.run(more_on_two_processes, processes=2, devices=2)


def save(folder: pathlib.Path) -> tuple[dict[str, Any], Any]:
    """Saves a run whose parameters are split, and fails to."""
    trainer = build("deep_mlp", backend="flax", mesh=mesh(), shard="fsdp")
    trainer.save(folder / "run.safetensors")
    failure = raised(lambda: trainer.save(folder / "missing" / "file"))
    return trainer.state().flat(), failure


def test_one_process_writes_the_file_of_all(folder, runs):
    trainer = load(folder / "run.safetensors", backend="equinox")
    for found in runs:
        state, _ = found["saved"]
        for name, x in trainer.state().flat().items():
            assert x.tobytes() == state[name].tobytes(), name
    (kind, message), (other, told) = (found["saved"][1] for found in runs)
    assert kind == "FileNotFoundError"
    assert other == "BatchError" and told.endswith(f"this: {kind}: {message}")


def test_two_processes_train_as_one_device(runs):
    check(CELL, [found["run"] for found in runs], 2)


@pytest.mark.exhaustive
def test_masks_do_not_depend_on_the_number_of_processes(more_runs):
    expected = masks("reference")
    for found in more_runs:
        for one in found["masks"]:
            assert one.tobytes() == expected.tobytes()


def own_models(**options) -> list[np.ndarray]:
    """Trains models of the user, with dropout and running statistics."""
    models = [
        user_models.NnxStateful(nnx.Rngs(0)),
        eqx.nn.make_with_state(user_models.EqxStateful)(jax.random.key(0)),
    ]
    xs, ys = user_models.XS.astype(float), user_models.YS.astype(float)
    if options:
        xs, ys = part(xs), part(ys)
    losses = []
    for model in models:
        trainer = build(
            model,
            loss="mse",
            optimizer=optax.adam(1e-2),
            dtype="float64",
            **options,
        )
        losses.append(
            trainer.fit(xs, ys, epochs=3, batch_size=8, progress=False)
        )
    return losses


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.*mode=:UserWarning")
def test_models_of_the_user_train_in_two_processes(more_runs):
    for found in more_runs:
        for losses, expected in zip(found["own"], own_models(), strict=True):
            close(losses, expected, "trajectory")


def disagreements() -> dict[str, tuple[str, str]]:
    """Passes other values in each process."""
    i = jax.process_index()
    here = mesh()
    trainer = build("deep_mlp", backend="flax", mesh=here)
    xs = np.zeros((40 + i, 8), "float32")

    def fit(xs, ys, **options):
        trainer.fit(xs, ys, progress=False, **options)

    def model(bias):
        module: Any = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        module.bias[...] += bias
        build(module, loss="mse", optimizer=optax.sgd(1.0), mesh=here)

    rates = (1e-3, 1e-2)
    return {
        "seed": raised(lambda: build(backend="flax", mesh=here, seed=i)),
        "spec": raised(
            lambda: build("deep_mlp", backend="flax", mesh=here, size=8 + i)
        ),
        "optimizer": raised(
            lambda: build(
                backend="flax", mesh=here, optimizer=optax.adam(rates[i])
            )
        ),
        "backend": raised(lambda: build(backend="flax" * (i + 1), mesh=here)),
        "values": raised(lambda: model(i)),
        "size": raised(lambda: fit(xs, xs)),
        "shape": raised(lambda: fit(xs[:40, i:], xs[:40])),
        "epochs": raised(lambda: fit(xs[:40], xs[:40], epochs=1 + i)),
    }


DISAGREEMENTS = {
    "seed": "seed of process 1: got 1, expected 0 as in process 0. ",
    "spec": "hyper_parameters of process 1: got {'depth': 2, 'size': 9, ",
    "optimizer": "optimizer of process 1: got ",
    "values": "initial values of process 1: got ",
    "size": "number of examples of process 1: got 41, expected 40 as in ",
    "epochs": "epochs of process 1: got 2, expected 1 as in process 0. ",
}


def test_processes_that_disagree_are_told_so_by_name(runs):
    for name, start in DISAGREEMENTS.items():
        for found in runs:
            kind, message = found["disagreements"][name]
            assert (kind, message[: len(start)]) == ("BatchError", start)
    # What is wrong in one process is raised in the other one too.
    for name, own in (("backend", "ValueError"), ("shape", "BatchError")):
        others, (kind, message) = (x["disagreements"][name] for x in runs)
        assert kind == own
        assert others == (
            "BatchError",
            "process 1: got an error, expected none. It raised this: "
            f"{own}: {message}",
        )
