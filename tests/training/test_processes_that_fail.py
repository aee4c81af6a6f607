"""What fails in one of two processes ends both, and leaves a checkpoint."""

import os
import pathlib
import random
import re
import shutil
import signal
import threading
import time
from typing import Any

import jax
import numpy as np
import pytest

from common import agreement, build, checkpoints
from tests import topologies

SIZE, BATCH, EPOCHS = 16, 8, 40
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(SIZE, 8))
FIRST = 4
"""The number of steps after which something may fail."""


def make(mesh: Any = None) -> Any:
    shard = None if mesh is None else "fsdp"
    options: Any = {"depth": 1, "size": 8, "dtype": "float64"}
    return build(
        "deep_mlp", backend="reference", mesh=mesh, shard=shard, **options
    )


def fit(trainer: Any, folder: Any, **options: Any) -> np.ndarray:
    count, index = jax.process_count(), jax.process_index()
    xs = np.split(XS, count)[index]
    options = {"epochs": EPOCHS, "batch_size": BATCH, **options}
    if folder is not None:
        options |= {"checkpoint": folder, "every": 1, "keep": 2}
    return trainer.fit(xs, np.sin(xs), progress=False, **options)


def on_all_devices() -> Any:
    return make(jax.make_mesh((jax.device_count(),), ("data",)))


def after(trainer: Any, steps: int, act: Any) -> None:
    """Does something when a trainer has taken so many steps."""
    keep = trainer._keep

    def keep_and_act(chunk: Any) -> None:
        keep(chunk)
        if trainer.steps_taken >= steps:
            act()

    trainer._keep = keep_and_act


def train_and_die(folder: str, victims: tuple[int, ...], delay: float) -> None:
    """Kills some of the processes while they train and write."""

    def die() -> None:
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        timer.start()

    trainer = on_all_devices()
    if jax.process_index() in victims:
        after(trainer, FIRST, die)
    fit(trainer, folder)


def message_of(call: Any) -> tuple[str, float]:
    """Returns the error of a call, and how long it took."""
    began = time.perf_counter()
    try:
        call()
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        return text, time.perf_counter() - began
    return "", time.perf_counter() - began


def disagree(folder: str) -> dict[str, Any]:
    """Lets each thing go wrong in process 1 only."""
    is_last = jax.process_index() == 1
    run, other = (pathlib.Path(folder, name) for name in ("run", "other"))
    trainer = on_all_devices()
    fit(trainer, run, epochs=1)
    found: dict[str, Any] = {"steps": checkpoints.steps(run)}

    def start(*paths: pathlib.Path, **options: Any) -> tuple[str, float]:
        path = paths[1] if is_last else paths[0]
        return message_of(lambda: fit(trainer, path, epochs=1, **options))

    found["other steps"] = start(run, other, resume=True)
    other.mkdir(exist_ok=True)
    found["strangers"] = start(run, pathlib.Path(__file__).parent)
    broken = pathlib.Path(folder, "broken")
    if is_last:
        shutil.copytree(run, broken)
        (broken / "2" / checkpoints.MANIFEST / "metadata").unlink()
    found["unreadable"] = start(run, broken, resume=True)
    for name, path in {
        "empty": other,
        "kind": pathlib.Path(__file__),
        "damaged": broken,
    }.items():
        mine = path if is_last else run
        found[name] = message_of(lambda path=mine: trainer.load(path))

    # Control-C in one process stops both, after the same step.
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    if is_last:
        after(trainer, FIRST, interrupt)
    found["interrupt"] = message_of(lambda: fit(trainer, run))
    found["after"] = trainer.steps_taken, checkpoints.steps(run)
    return found


ERRORS = {
    "other steps": r"BatchError: checkpoint folder '.+': got checkpoints of "
    r"the steps \[\] in process 1, expected \[1, 2\] as in process 0\. .+",
    "strangers": r"BatchError: .+: got '__init__\.py', .+ in it, expected .+",
    "unreadable": r".+Error: .+metadata'\), expected a checkpoint that .+",
    "empty": r"StateError: .+: got a folder without checkpoints, expected .+",
    "kind": r"StateError: path '.+': got a file in process 1, expected a fo.+",
    "damaged": r"StateError: .+metadata'\), expected a checkpoint that .+",
    "interrupt": r"Interrupted: fit: interrupted after .+",
}
"""What both processes raise, which may say that the other one raised this."""


@pytest.mark.exhaustive
def test_what_fails_in_one_process_is_raised_in_both(tmp_path):
    both = topologies.run(disagree, str(tmp_path), processes=2, devices=2)
    for found in both:
        assert found["steps"] == [1, 2]
        for name, pattern in ERRORS.items():
            text, seconds = found[name]
            assert re.fullmatch(pattern, text), text
            assert seconds < 10, name
    # Both wrote the same last checkpoint after Control-C.
    assert both[0]["after"] == both[1]["after"]
    step, steps = both[0]["after"]
    assert FIRST <= step < 2 * EPOCHS and steps[-1] == step


@pytest.mark.exhaustive
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1)])
def test_a_killed_process_leaves_the_last_checkpoint(victims, tmp_path):
    whole = make()
    expected = fit(whole, None)
    draw = random.Random(0)
    found = topologies.outcomes(
        train_and_die,
        str(tmp_path / "run"),
        victims,
        draw.uniform(0, 0.3),
        processes=2,
        devices=2,
        patience=100,
    )
    for process, one in enumerate(found):
        if process in victims:
            assert one.code == -signal.SIGKILL
        else:  # it ends by itself, with an error
            assert one.code not in (0, None)
            assert one.result is None
    steps = checkpoints.steps(tmp_path / "run")
    assert steps[-1] >= FIRST - 1
    trainer = make()
    losses = fit(trainer, tmp_path / "run", resume=True)
    rest = expected[len(expected) - len(losses) :]
    errors = np.abs(losses - rest) / np.abs(rest)
    assert errors.max() <= agreement.tolerance("float64", "trajectory")
    assert trainer.steps_taken == whole.steps_taken
