"""`load` builds the trainer of a file; a resumed `fit` compares its data."""

import dataclasses
import json
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import State, build, load
from common.errors import HyperParameterError, StateError
from common.models import SPECS
from common.training import losses, manifest
from common.training.identity import describe
from common.training.recorded_optimizers import MAKERS, find_optimizer

SMALL: Any = {"depth": 1, "size": 3}


def mse(predictions, targets):
    """Not the mean squared error, but called so."""
    return jnp.mean(jnp.abs(predictions - targets))


@pytest.fixture
def xs():
    return np.random.default_rng(0).normal(size=(10, 3)).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def start(**options):
    options = {"backend": "reference", **SMALL, **options}
    return build("deep_mlp", **options)


# --- the header -------------------------------------------------------------


def test_the_header_says_how_to_build_the_trainer(path, xs):
    trainer = start(seed=3, metrics=["mse"])
    trainer.fit(xs, np.sin(xs), batch_size=4, progress=False)
    trainer.save(path)
    _, meta = State.read(path)
    assert meta["spec"] == "deep_mlp"
    assert meta["class"] == "common.models.deep_mlp.DeepMLP"
    assert meta["backend"] == "reference"
    assert (meta["seed"], meta["dtype"]) == (3, "float32")
    assert meta["names"] == {"loss": "mse", "metrics": {"mse": "mse"}}
    assert meta["batch_size"] == 4
    assert meta["data"].startswith(
        "(inputs=float32(10, 3), targets=float32(10, 3), sha256="
    )
    assert {"jax", "flax", "equinox", "optax", "safetensors"} <= meta[
        "versions"
    ].keys()


def test_the_header_names_the_class_of_a_users_model(path):
    import equinox as eqx
    import jax

    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    build(model=model, loss="mse", optimizer=optax.sgd(0.1)).save(path)
    _, meta = State.read(path)
    assert (meta["model"], meta["backend"]) == ("Linear", "equinox")
    assert meta["class"] == "equinox.nn._linear.Linear"
    with pytest.raises(StateError) as caught:
        load(path, backend="equinox")
    assert str(caught.value) == (
        f"state file {str(path)!r}: got a model of the class "
        "equinox.nn._linear.Linear, expected a spec of stateful_mlp, "
        "digits_cnn, deep_mlp. Build its trainer with `build`, and call "
        "`Trainer.load` with this path."
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda xs: xs[::-1],
        lambda xs: xs[:-1],
        lambda xs: xs.astype("float64"),
        lambda xs: xs + np.eye(10, 3, dtype=xs.dtype) * np.float32(1e-6),
    ],
    ids=["order", "size", "dtype", "value"],
)
def test_another_data_set_has_another_digest(change, xs):
    other = manifest.fitted(change(xs), xs, 2)
    assert other["data"] != manifest.fitted(xs, xs, 2)["data"]
    assert manifest.fitted(jnp.array(xs), xs, 2) == manifest.fitted(xs, xs, 2)


def test_evenly_spaced_rows_of_a_large_data_set_are_hashed(monkeypatch, xs):
    monkeypatch.setattr(manifest, "WHOLE", xs.nbytes // 2)
    before = manifest.fitted(xs, xs, 2)
    for row, changes in ((0, True), (1, False), (8, True)):
        other = xs.copy()
        other[row] += 1
        assert (manifest.fitted(other, xs, 2) != before) == changes


# --- load -------------------------------------------------------------------


def test_load_builds_the_same_trainer_and_continues(path, xs, assert_same):
    options: Any = {"optimizer": optax.adamw(0.02), "metrics": ["mse"]}
    whole = start(seed=3, **options)
    whole.fit(xs, np.sin(xs), epochs=1, batch_size=4, progress=False)
    whole.save(path)
    again = load(path, backend="reference")
    assert again.spec == whole.spec
    assert (again.seed, again.fitted["batch_size"]) == (3, 4)
    assert describe(again.optimizer) == describe(whole.optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = again.fit(xs, np.sin(xs), progress=False)
    expected = whole.fit(xs, np.sin(xs), batch_size=4, progress=False)
    assert np.array_equal(losses, expected)
    assert_same(again.state(), whole.state())
    assert load(path, backend="nnx").backend.name == "flax"


def test_an_older_file_is_loaded(path):
    """Which has neither a class nor names, and no batch size."""
    trainer = start()
    meta = manifest.manifest(trainer)
    for key in ("class", "names", "backend"):
        del meta[key]
    trainer.state().save(path, meta)
    assert load(path, backend="reference").fitted == {}


@pytest.mark.parametrize("name", MAKERS)
def test_an_optimizer_with_a_learning_rate_is_found(name):
    text = describe(MAKERS[name](0.0137))
    assert describe(find_optimizer(text)) == text


def test_an_optimizer_with_another_setting_is_not_found():
    assert find_optimizer(describe(optax.adam(0.1, b1=0.8))) is None
    assert find_optimizer(describe(optax.sgd(lambda step: 0.1))) is None
    assert find_optimizer("0.1 " * 10_000) is None
    schedule = optax.adam(optax.linear_schedule(0.1, 0.0, 10))
    assert find_optimizer(describe(schedule), schedule) is schedule


CUSTOM: dict[str, tuple[Any, str]] = {
    "optimizer": (
        optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        "optimizer of state file",
    ),
    "loss": (mse, "loss of state file"),
    "metrics": ({"error": mse}, "metric 'error' of state file"),
}


@pytest.mark.parametrize("part", CUSTOM)
def test_what_the_file_does_not_determine_is_named(part, path, assert_same):
    """Also a function of the user with the name of one of ours."""
    value, what = CUSTOM[part]
    trainer = start(**{part: value})
    trainer.save(path)
    with pytest.raises(ValueError, match=f"^{what} .+Pass `{part}=` what"):
        load(path, backend="reference")
    again = load(path, backend="reference", **{part: value})
    assert_same(again.state(), trainer.state())


def test_a_name_of_ours_is_not_that_of_a_users_function():
    assert losses.name_of(losses.mse) == "mse"
    assert losses.name_of(mse) is None


def spoiled(path, **changes) -> None:
    """Writes a file whose header has other entries than its trainer."""
    trainer = start()
    meta = {**manifest.manifest(trainer), **changes}
    meta = {name: x for name, x in meta.items() if x is not None}
    trainer.state().save(path, meta)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"spec": "mine"}, StateError, r"got the spec 'mine', expected a "),
        ({"spec": [1]}, StateError, r"got a model of the class .+, expect"),
        ({"class": "my.DeepMLP"}, StateError, r"of the class my\.DeepMLP"),
        ({"spec": None, "model": "X"}, StateError, r"got a model of the c"),
        ({"seed": None}, StateError, r"got a header without seed, expecte"),
        (
            {"hyper_parameters": {"depth": 10**12, "size": 3}},
            StateError,
            r"got the hyper-parameters .+, expected those of a model of ",
        ),
        ({"hyper_parameters": [3]}, StateError, r"got the hyper-paramet"),
        (
            {"hyper_parameters": {"depth": 1, "size": 4}},
            StateError,
            r"got the shape \(3, 3\) of '.+', expected \(4, 4\), as the h",
        ),
        (
            {"hyper_parameters": {"width": 3}},
            HyperParameterError,
            r"hyper-parameter: got 'width', expected",
        ),
        ({"dtype": "float16"}, ValueError, r"dtype: got 'float16', expe"),
        ({"seed": -1}, ValueError, r"seed: got -1, expected"),
        ({"loss": "huber", "names": {}}, ValueError, r"loss: got 'huber'"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes, error, message, path):
    spoiled(path, **changes)
    with pytest.raises(error, match=message):
        load(path, backend="reference")


def test_a_file_of_another_kind_and_none(path):
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(StateError, match="got bytes that are not"):
        load(path, backend="reference")
    with pytest.raises(FileNotFoundError):
        load(path.with_name("nowhere"), backend="reference")


# --- a resumed run ----------------------------------------------------------


def test_another_batch_size_or_data_set_warns_by_name(path, xs):
    trainer = start()
    trainer.fit(xs, xs, batch_size=4, progress=False)
    trainer.save(path)
    trainer.load(path)
    with pytest.warns(UserWarning) as record:
        trainer.fit(xs, xs + 1, batch_size=2, progress=False)
    first, second = (str(warning.message) for warning in record)
    assert first == (
        f"state file {str(path)!r}: got batch_size 4, expected 2 as in this "
        "call of `fit`. Training continues with the latter; pass the saved "
        "one to continue the same run."
    )
    assert second.startswith(f"state file {str(path)!r}: got data (inputs=")
    assert all(warning.filename == __file__ for warning in record)
    # The run goes on with the new ones, so there is nothing more to say.
    trainer.fit(xs, xs + 1, batch_size=2, progress=False)
    trainer.fit(xs, xs, batch_size=4, progress=False)


def test_a_run_with_nan_is_loaded_with_a_warning(path, xs):
    """Training can produce NaN, and a damaged optimizer state too."""
    trainer = start()
    state = trainer.state()
    name = next(iter(state.params))
    payload = np.array([0x7FC01234], np.uint32).view(np.float32)
    params = {n: x.copy() for n, x in state.params.items()}
    params[name].flat[0] = payload[0]
    bad = dataclasses.replace(state, params=params)
    bad.save(path, manifest.manifest(trainer))
    with pytest.warns(UserWarning) as record:
        trainer.load(path)
    (warning,) = record
    assert str(warning.message) == (
        f"state file {str(path)!r}: got NaN in {name!r}, expected numbers. "
        "Every loss will be NaN; load an earlier file of the run, or another "
        "one."
    )
    assert warning.filename == __file__
    again = State.read(path)[0].params[name]
    assert again.tobytes() == params[name].tobytes()
    assert json.dumps(manifest.manifest(trainer))


def test_infinities_are_loaded_without_a_warning(path):
    """Such as the best value so far of a plateau."""
    trainer = start()
    state = trainer.state()
    params = {n: np.full_like(x, np.inf) for n, x in state.params.items()}
    dataclasses.replace(state, params=params).save(path, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.load(path)


def test_every_spec_is_loaded(path):
    for name in SPECS:
        build(name, backend="reference").save(path)
        assert load(path, backend="reference").name == name
