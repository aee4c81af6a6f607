"""A saved State records its optimizer, loss and metrics."""

import json
import pathlib
import subprocess
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common import State, build
from common.training.identity import describe
from common.training.losses import mse
from common.training.optax_table import OPTIMIZERS, TRANSFORMATIONS

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")
TABLE = OPTIMIZERS | TRANSFORMATIONS
SMALL: Any = {"hidden_size": 2}


def test_an_optimizer_reads_like_its_source():
    optimizer = optax.chain(optax.clip(0.5), optax.scale(-0.1))
    assert describe(optimizer) == (
        "chain(update_fns=(clip(max_delta=0.5), scale(step_size=-0.1)))"
    )


def decay(scale):
    return lambda names: {name: scale > 0 for name in names}


DIFFERENT = {
    "rate": (optax.sgd(0.1), optax.sgd(0.2)),
    "rule": (optax.adam(0.1), optax.nadam(0.1)),
    "order": (
        optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        optax.chain(optax.sgd(0.1), optax.clip(1.0)),
    ),
    "schedule": (
        optax.sgd(optax.linear_schedule(0.1, 0.0, 10)),
        optax.sgd(optax.linear_schedule(0.1, 0.0, 20)),
    ),
    "mask": (
        optax.adamw(0.1, mask=decay(0)),
        optax.adamw(0.1, mask=decay(1)),
    ),
    "base of MultiSteps": (
        optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
        optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation(),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_optimizer_has_another_form(name):
    left, right = DIFFERENT[name]
    assert describe(left) != describe(right)


@pytest.mark.parametrize("name", TABLE)
def test_the_same_optimizer_has_the_same_form(name):
    form = describe(TABLE[name].make())
    assert form == describe(TABLE[name].make())
    assert "0x" not in form


PRINT = """
import json
from common.training.identity import describe
from common.training.optax_table import OPTIMIZERS, TRANSFORMATIONS
table = OPTIMIZERS | TRANSFORMATIONS
print(json.dumps({name: describe(row.make()) for name, row in table.items()}))
"""


def test_another_process_has_the_same_forms():
    run = subprocess.run(
        [sys.executable, "-c", PRINT],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    forms = json.loads(run.stdout)
    assert forms == {name: describe(r.make()) for name, r in TABLE.items()}


@pytest.mark.parametrize("make_array", [np.asarray, jnp.asarray])
def test_a_function_is_described_with_the_arrays_that_it_uses(make_array):
    def weighted(values):
        weights = make_array(values)
        return lambda predictions, targets: weights * predictions

    form = describe(weighted([1.0, 2.0]))
    assert form.startswith("lambda predictions, targets(weights=array(shape=")
    assert form == describe(weighted([1.0, 2.0]))
    assert form != describe(weighted([1.0, 3.0]))


# --- saving and loading -----------------------------------------------------


def loss(predictions, targets):
    return jnp.mean(jnp.abs(predictions - targets))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run.safetensors"
    build(backend="flax", optimizer=optax.adam(0.1), **SMALL).save(path)
    return path


def test_the_header_records_all_of_it(saved):
    _, meta = State.read(saved)
    assert meta["optimizer"] == describe(optax.adam(0.1))
    assert meta["optimizer_state"] == (
        "(ScaleByAdamState(count=scalar, mu=params, nu=params), EmptyState())"
    )
    assert meta["loss"] == "mse"
    assert meta["metrics"] == {}


def test_the_same_trainer_loads_without_a_warning(saved, backend):
    trainer = build(backend=backend, optimizer=optax.adam(0.1), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.load(saved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimizer": optax.adam(0.2)},
            r"got optimizer chain\(.*step_size=-0\.1.*\), expected "
            r"chain\(.*step_size=-0\.2.*\) as in this trainer\.",
        ),
        ({"loss": loss}, r"got loss mse, expected loss as in this trainer\."),
        (
            {"metrics": {"error": mse}},
            r"got metrics \{\}, expected \{'error': 'mse'\} as in this",
        ),
    ],
    ids=["optimizer", "loss", "metrics"],
)
def test_another_trainer_warns(saved, options, message):
    options = {"optimizer": optax.adam(0.1), **SMALL, **options}
    trainer = build(backend="equinox", **options)
    with pytest.warns(UserWarning, match=message) as record:
        trainer.load(saved)
    assert len(record) == 1


def test_another_structure_still_raises(saved):
    trainer = build(backend="equinox", optimizer=optax.sgd(0.1), **SMALL)
    with pytest.raises(ValueError, match=r"got .*, expected nothing"):
        trainer.load(saved)


def test_a_file_without_a_record_loads_without_a_warning(saved, tmp_path):
    state, meta = State.read(saved)
    older = tmp_path / "older.safetensors"
    state.save(older, {"spec": meta["spec"]})
    trainer = build(backend="equinox", optimizer=optax.adam(0.2), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.load(older)


def test_random_keys_are_saved_as_key_data(tmp_path):
    optimizer = optax.noisy_sgd(0.1, key=jax.random.key(7))
    path = tmp_path / "run.safetensors"
    build(backend="flax", optimizer=optimizer, **SMALL).save(path)
    state, _ = State.read(path)
    key = state.opt["optimizer.0.rng_key"]
    expected = jax.random.key_data(jax.random.key(7))
    assert key.dtype == "uint32" and (key == expected).all()
    trainer = build(backend="equinox", optimizer=optimizer, **SMALL)
    native = trainer.load(path).native
    again = jax.random.key_data(native.opt_state[0].rng_key)
    assert (again == expected).all()
