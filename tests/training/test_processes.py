"""Processes that share a mesh: what they agree on, and what they raise."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from tests import topologies
from tests.training.mesh_runs import (
    QUICK,
    check,
    masks_on_mesh,
    mesh,
    raised,
    run_on_mesh,
)
from tests.training.test_dropout_masks import masks


def on_two_processes() -> dict[str, Any]:
    return {
        "runs": run_on_mesh(QUICK, 2),
        "masks": masks_on_mesh(),
        "disagreements": disagreements(),
    }


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Any]]:
    return topologies.run(on_two_processes, processes=2, devices=2)


@pytest.mark.exhaustive
def test_two_processes_train_as_one_device(runs):
    for i, cell in enumerate(QUICK):
        check(cell, [found["runs"][i] for found in runs], 2)


@pytest.mark.exhaustive
def test_masks_do_not_depend_on_the_number_of_processes(runs):
    expected = masks("reference")
    for found in runs:
        for one in found["masks"]:
            assert one.tobytes() == expected.tobytes()


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


@pytest.mark.exhaustive
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
