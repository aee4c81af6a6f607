"""Checkpoints of `fit`: a run that is interrupted ends as if it was not."""

import os
import warnings
from typing import Any

import numpy as np
import pytest

from common import State, build, checkpoints, load
from common.errors import BatchError, Interrupted, StateError
from common.training.progress import Progress
from tests.training.runs import use_loop

SIZE, BATCH = 11, 4  # two steps in an epoch, and three examples left
EVERY = 3


@pytest.fixture
def data(make, make_batch):
    return make_batch(make("deep_mlp", "reference").spec, size=SIZE)


@pytest.fixture
def start(make):
    """Makes a trainer whose loop is compiled already."""
    return lambda: use_loop(make("deep_mlp", "reference"), False)


@pytest.fixture
def fit(data):
    def fit(trainer, epochs=5, **options):
        options = {"batch_size": BATCH, "progress": False, **options}
        return trainer.fit(*data, epochs=epochs, **options)

    return fit


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "run"


def test_a_fit_with_checkpoints_is_the_same_fit(
    start, fit, folder, assert_same
):
    whole, trainer = (start() for _ in range(2))
    expected = fit(whole)
    losses = fit(trainer, checkpoint=folder, every=EVERY)
    assert np.array_equal(losses, expected)
    assert_same(trainer.state(), whole.state())
    assert checkpoints.steps(folder) == [3, 6, 9, 10]
    # Each is the state of a run that ended there.
    state, meta = State.read(folder / "9")
    assert (state.step, state.rng["epoch"], state.rng["position"]) == (9, 4, 4)
    assert (meta["spec"], meta["batch_size"]) == ("deep_mlp", BATCH)
    assert_same(State.read(folder)[0], whole.state())
    again = load(folder / "6", backend="reference")
    again.seed, rest = 0, fit(again, 2, batch_size=None)
    assert np.array_equal(rest, expected[6:])
    assert_same(again.state(), whole.state())


def test_by_default_there_is_one_for_each_epoch(start, fit, folder):
    fit(start(), 3, checkpoint=str(folder))
    assert checkpoints.steps(folder) == [2, 4, 6]


def test_the_newest_are_kept(start, fit, folder):
    fit(start(), checkpoint=folder, every=1, keep=2)
    assert checkpoints.steps(folder) == [9, 10]


@pytest.mark.parametrize("resume", ["resume", "load"])
def test_an_interrupted_run_continues_from_its_checkpoint(
    resume, start, fit, folder, monkeypatch, assert_same
):
    """Also with the same call again, as of a script that is restarted."""
    whole, trainer = (start() for _ in range(2))
    expected = fit(whole)
    options: Any = {"checkpoint": folder, "every": EVERY}

    def interrupt(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    with pytest.raises(Interrupted):
        fit(trainer, resume=True, **options)
    assert checkpoints.steps(folder) == [3]

    again = start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if resume == "resume":
            losses = fit(again, resume=True, batch_size=None, **options)
        else:
            losses = fit(again.load(folder), 4, **options)
    assert np.array_equal(losses, expected[3:])
    assert_same(again.state(), whole.state())
    # A call that has nothing left to do changes nothing.
    if resume == "resume":
        done = fit(start(), resume=True, **options)
        assert len(done) == 0
    assert checkpoints.steps(folder) == [3, 6, 9, 10]


def test_control_c_writes_a_last_checkpoint(start, fit, folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    trainer = start()
    with pytest.raises(Interrupted):
        fit(trainer, checkpoint=folder, every=100)
    assert checkpoints.steps(folder) == [trainer.state().step]


def test_another_data_set_warns_by_name(start, fit, data, folder):
    trainer = start()
    fit(trainer, 1, checkpoint=folder)
    data.xs[0] += 1
    again = start()
    with pytest.warns(UserWarning, match="^checkpoints .+: got data ") as seen:
        fit(again, 2, checkpoint=folder, resume=True)
    assert len(seen) == 1


def test_a_run_that_diverges_keeps_the_last_good_checkpoint(
    start, fit, data, folder
):
    data.ys[:] = np.where(np.arange(SIZE)[:, None] == 5, np.nan, data.ys)
    with pytest.raises(FloatingPointError):
        fit(start(), checkpoint=folder, every=1)
    for step in checkpoints.steps(folder):
        assert np.isfinite(
            State.read(folder / str(step))[0].params["blocks.0.linear.weight"]
        ).all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "every": ({"every": 0}, r"every: got 0, expected an integer of 1 or mor"),
    "every bool": ({"every": True}, r"every: got True, expected an integer"),
    "keep": ({"keep": 1.5}, r"keep: got 1\.5, expected an integer of 1 or "),
    "no folder": (
        {"checkpoint": None, "keep": 2, "resume": True},
        r"checkpoint: got None with keep, resume, expected a folder\.",
    ),
    "no path": ({"checkpoint": 3}, r"checkpoint: got 3, expected the path"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name, start, fit, folder, assert_raises):
    options, message = BAD[name]
    trainer = start()
    assert_raises(
        lambda: fit(trainer, **{"checkpoint": folder, **options}),
        BatchError,
        message + ".*",
    )
    assert not folder.exists()


def test_a_file_or_a_folder_with_other_things(
    start, fit, tmp_path, assert_raises
):
    trainer = start()
    file = tmp_path / "notes.txt"
    file.touch()
    assert_raises(
        lambda: fit(trainer, checkpoint=file),
        BatchError,
        r"checkpoint folder '.+txt': got a file, expected a folder\. .+",
    )
    assert_raises(
        lambda: fit(trainer, checkpoint=tmp_path),
        BatchError,
        r"checkpoint folder '.+': got 'notes\.txt' in it, expected a new .+",
    )
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_folder_that_is_read_only(start, fit, folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "temporary")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(PermissionError) as caught:
        fit(start(), checkpoint=folder)
    assert str(caught.value) == (
        f"checkpoint folder {str(folder)!r}: got the error 'permission "
        "denied', expected a folder that can be written to. Change its "
        "permissions, or choose another folder."
    )


def test_checkpoints_of_another_run(start, fit, folder, assert_raises):
    fit(start(), 2, checkpoint=folder)
    other = build("deep_mlp", backend="reference", dtype="float64", size=3)
    assert_raises(
        lambda: fit(other, checkpoint=folder),
        StateError,
        r"checkpoint folder '.+': got checkpoints of deep_mlp\(depth=1, .+\), "
        r"expected those of deep_mlp\(depth=.+\), as in this trainer\. .+",
    )
    trainer = start()
    with pytest.raises(StateError, match=r"up to step 4, expected none aft"):
        fit(trainer, checkpoint=folder)
    fit(trainer, 3)
    with pytest.raises(StateError, match=r"up to step 4, expected one at st"):
        fit(trainer, checkpoint=folder, resume=True)
    assert checkpoints.steps(folder) == [2, 4]


def test_a_full_disk_ends_the_run_and_keeps_the_state(
    start, fit, folder, monkeypatch
):
    import orbax.checkpoint as ocp

    trainer = start()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    with pytest.raises(OSError, match=r"no space left.+Free some space"):
        fit(trainer, checkpoint=folder, every=EVERY)
    assert trainer.state().step == EVERY
