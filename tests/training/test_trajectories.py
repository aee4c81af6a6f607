"""A thousand steps: every loss, and every leaf at the end."""

from typing import Any

import numpy as np
import pytest

from common import Trainer, agreement, backends, build, compare, specs
from common.layers import BATCH_NORM_DIALECTS
from common.training import data
from tests.conftest import TINY, exhaustive_but

STEPS = 1000
# A convolution of full size would take minutes for a thousand steps.
SIZES = {"digits_cnn": TINY["digits_cnn"]}

models = pytest.mark.parametrize(
    "model", exhaustive_but(specs(), "stateful_mlp")
)


def marked(model: str, dialect: str) -> Any:
    """Returns a cell with its marks."""
    quick = (model, dialect) == ("stateful_mlp", "standard")
    marks = [] if quick else [pytest.mark.exhaustive]
    return pytest.param(model, dialect, marks=marks)


def make(model: str, backend: str, dialect: str) -> Trainer:
    return build(
        model,
        backend=backend,
        dtype="float64",
        batch_norm=dialect,
        **SIZES.get(model, {}),
    )


def batch(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    found = data.dataset(trainer.spec, dtype="float64")
    return found.train_xs[:8], found.train_ys[:8]


def run(trainer: Trainer) -> np.ndarray:
    xs, ys = batch(trainer)
    losses = [trainer.step(xs, ys)["loss"] for _ in range(STEPS)]
    return np.array([float(loss) for loss in losses])


def check_losses(actual: np.ndarray, expected: np.ndarray) -> None:
    """Checks every loss, relative to its own magnitude."""
    assert np.isfinite(expected).all()
    errors = np.abs(actual - expected) / np.abs(expected)
    bound = agreement.tolerance("float64", "trajectory")
    worst = errors.argmax()
    assert errors[worst] <= bound, f"step {worst + 1}: {errors[worst]:.2g}"


def check_states(actual: Trainer, expected: Trainer) -> None:
    """Checks every leaf, relative to its largest magnitude."""
    a, b = actual.state(), expected.state()
    bound = agreement.tolerance("float64", "parameters")
    errors = agreement.relative_errors(a.flat(), b.flat())
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] <= bound, (worst, errors[worst])
    assert a.step == b.step == STEPS


@pytest.mark.parametrize(
    ("model", "dialect"),
    [marked(m, d) for m in specs() for d in BATCH_NORM_DIALECTS],
)
def test_three_backends_agree(model, dialect):
    trainers = [make(model, name, dialect) for name in backends()]
    reference, *judged = trainers
    expected = run(reference)
    found = [run(trainer) for trainer in judged]
    for losses, trainer in zip(found, judged, strict=True):
        check_losses(losses, expected)
        check_states(trainer, reference)
    check_losses(*found)
    check_states(*judged)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", specs())
def test_the_backend_can_change_after_every_step(model):
    """The run is the same as one that stays in one backend."""
    names = ("reference", "equinox", "flax")
    reference, here, there = (make(model, name, "standard") for name in names)
    expected = run(reference)
    xs, ys = batch(here)
    losses = []
    for _ in range(STEPS):
        losses.append(float(here.step(xs, ys)["loss"]))
        here, there = there.load(here.state()), here
    check_losses(np.array(losses), expected)
    check_states(here, reference)


# The envelope is calibrated for XLA's default optimization.
@pytest.mark.exhaustive
@pytest.mark.optimized
@models
def test_float32_errors_stay_within_the_envelope(model):
    left, right = (
        build(model, backend=name, **SIZES.get(model, {}))
        for name in ("equinox", "flax")
    )
    found = data.dataset(left.spec)
    report = compare(
        left, right, found.train_xs[:8], found.train_ys[:8], steps=300
    )
    assert report.ok, str(report)


def test_the_float32_envelope_grows():
    """Float64 has the same tolerance at every step."""
    f32 = [agreement.tolerance("float32", "trajectory", k) for k in (1, 100)]
    f64 = [agreement.tolerance("float64", "trajectory", k) for k in (1, 100)]
    assert f32[0] < f32[1]
    assert f64[0] == f64[1]


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", backends())
def test_digits_are_learned(backend):
    """The accuracy on held-out digits is at least 98 % in every backend."""
    trainer = build("digits_cnn", backend=backend)
    digits = data.digits()
    trainer.fit(
        digits.train_xs,
        digits.train_ys,
        epochs=10,
        batch_size=64,
        progress=False,
    )
    metrics = trainer.evaluate(digits.test_xs, digits.test_ys)
    assert metrics["accuracy"] >= 0.98
