"""What the tests of runs on several devices and processes share."""

import functools
from typing import Any

import jax
import numpy as np

from common import build
from common.agreement import assert_close
from common.training.checks import predictions_like
from tests.training.test_dropout_masks import masks

SIZES: dict[str, dict[str, Any]] = {
    "stateful_mlp": {"hidden_size": 8},
    "digits_cnn": {"channels": (8, 8)},
    "deep_mlp": {"depth": 2, "size": 8},
}
"""Sizes that eight devices divide."""

EXAMPLES, BATCH = 50, 16
Cell = tuple[str, str, str, Any]
"""The model, the backend, the dialect of batch norm, and `shard`."""


def examples(trainer) -> tuple[np.ndarray, np.ndarray]:
    """Returns all examples of a run."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(EXAMPLES, *trainer.spec.inputs.shape))
    shape = predictions_like(trainer.spec, xs, "float64").shape
    if trainer.spec.loss == "cross_entropy":
        return xs, rng.integers(0, shape[-1], EXAMPLES, np.int32)
    return xs, rng.normal(size=shape)


def part(x: np.ndarray) -> np.ndarray:
    """Returns the examples of this process."""
    return np.split(x, jax.process_count())[jax.process_index()]


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((jax.device_count(),), ("data",))


def start(cell: Cell, **options):
    model, backend, dialect, shard = cell
    if options.get("mesh") is not None:
        options["shard"] = shard
    return build(
        model,
        backend=backend,
        dtype="float64",
        batch_norm=dialect,
        **SIZES[model],
        **options,
    )


def run(cell: Cell, epochs: int, **options) -> dict[str, Any]:
    """Trains on this process's part of the examples."""
    trainer = start(cell, **options)
    xs, ys = map(part, examples(trainer))
    losses = trainer.fit(
        xs, ys, epochs=epochs, batch_size=BATCH, progress=False
    )
    size = len(xs) // 2 * 2
    return {
        "losses": losses,
        "state": trainer.state().flat(),
        "loss": np.asarray(trainer.evaluate(xs[:size], ys[:size])["loss"]),
        "predictions": np.asarray(trainer.predict(xs[:size])),
        "data": trainer.fitted["data"],
    }


def run_on_mesh(cells: list[Cell], epochs: int) -> list[dict[str, Any]]:
    return [run(cell, epochs, mesh=mesh()) for cell in cells]


@functools.cache
def on_one_device(cell: Cell, epochs: int) -> dict[str, Any]:
    """The same run on one device, with predictions for all examples."""
    trainer = start(cell)
    xs, ys = examples(trainer)
    return {
        "losses": trainer.fit(
            xs, ys, epochs=epochs, batch_size=BATCH, progress=False
        ),
        "trainer": trainer,
        "data": trainer.fitted["data"],
        "predictions": np.asarray(trainer.predict(xs)),
        "examples": (xs, ys),
    }


def check(cell: Cell, found: list[dict[str, Any]], epochs: int) -> None:
    """Asserts that each process's run is the run on one device."""
    expected = on_one_device(cell, epochs)
    xs, ys = expected["examples"]
    parts = np.split(np.arange(EXAMPLES), len(found))
    used = np.concatenate([x[: len(x) // 2 * 2] for x in parts])
    loss = expected["trainer"].evaluate(xs[used], ys[used])["loss"]
    for mine, process in zip(parts, found, strict=True):
        close(process["losses"], expected["losses"], "trajectory")
        predictions = expected["predictions"][mine[: len(mine) // 2 * 2]]
        close(process["predictions"], predictions, "eval")
        close([process["loss"]], [loss], "eval")
        assert process["data"] == expected["data"], cell
        for name, x in found[0]["state"].items():
            # Every process returns the whole State, and the same one.
            assert process["state"][name].tobytes() == x.tobytes(), name


def close(actual: Any, expected: Any, quantity: str) -> None:
    """Compares each element, of a loss that becomes small too."""
    assert_close(
        {str(i): np.asarray(x) for i, x in enumerate(actual)},
        {str(i): np.asarray(x) for i, x in enumerate(expected)},
        dtype="float64",
        quantity=quantity,
        what=quantity,
    )


CELL: Cell = ("stateful_mlp", "equinox", "standard", "fsdp")
"""The run that CI compares with one device."""


def masks_on_mesh() -> list[np.ndarray]:
    return [
        masks(backend, mesh=mesh(), rows=part)
        for backend in ("equinox", "flax")
    ]


def raised(call) -> tuple[str, str]:
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "none", ""
