"""Mixed precision: backends agree with the definition, and faults are found.

The trainers have `compute_dtype="bfloat16"`. The report judges them by the
tolerances of mixed precision, and the traced programs by their dtypes.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from flax import nnx

import impl_equinox.backend
from common import agreement, backends, build, compare
from common.comparison.lockstep import compare_all
from common.comparison.mixed_precision import find_wrong_dtypes, in_float32
from common.comparison.rows import COUNTS
from common.layers import BATCH_NORM_DIALECTS
from common.models import specs
from common.protocol import Settings
from common.training.precision import cast
from tests.comparison.faults import EQUINOX, FLAX, batch, trainer
from tests.conftest import TINY, exhaustive_but

NARROW = "bfloat16"
STEPS = 3
JUDGED = [name for name in backends() if name != "reference"]
MLP: dict[str, Any] = {"hidden_size": 5, "batch_norm": "standard"}


def data(spec):
    """Draws a batch for a model."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(8, *spec.inputs.shape)).astype("float32")
    if spec.loss == "cross_entropy":
        return xs, rng.integers(0, 10, 8, np.int32)
    return xs, rng.normal(size=(8, 3)).astype("float32")


def build_narrow(model, backend, compute_dtype=NARROW, **hyper):
    hyper = TINY.get(model, {}) | hyper
    return build(model, backend=backend, compute_dtype=compute_dtype, **hyper)


def faulty(backend, **hyper):
    """Returns a trainer of a faulty backend, and its batch."""
    found = trainer(
        "stateful_mlp",
        backend,
        "float32",
        settings=Settings(compute_dtype=NARROW),
        **MLP | hyper,
    )
    return found, *batch("stateful_mlp", "float32")


@pytest.mark.parametrize("dialect", exhaustive_but(BATCH_NORM_DIALECTS, "ema"))
@pytest.mark.parametrize("model", exhaustive_but(specs(), "stateful_mlp"))
@pytest.mark.parametrize("backend", exhaustive_but(JUDGED, "equinox"))
def test_a_backend_agrees_with_the_definition(model, backend, dialect):
    left, right = (
        build_narrow(model, name, batch_norm=dialect)
        for name in (backend, "reference")
    )
    report = compare(left, right, *data(left.spec), steps=STEPS)
    assert report.ok, str(report)
    assert report.dtype == "float32/bfloat16"
    quantities = [row.quantity for row in report.rows]
    assert quantities[:3] == ["state", "precision", "forward"]
    assert set(report.losses) == {backend, "reference"}


# --- the dtypes of the operations --------------------------------------------


@pytest.mark.parametrize("model", exhaustive_but(specs(), "stateful_mlp"))
@pytest.mark.parametrize("backend", exhaustive_but(backends(), "flax"))
def test_a_step_computes_in_the_right_dtypes(model, backend):
    found = build_narrow(model, backend)
    assert find_wrong_dtypes(found, *data(found.spec)) == []


class WideProducts(FLAX):
    """Computes in float32, whatever the compute dtype is."""

    def __init__(self, *args):
        *rest, settings = args
        settings = dataclasses.replace(settings, compute_dtype=None)
        super().__init__(*rest, settings)


class StockNorms(FLAX):
    """Lets `nnx.BatchNorm` round its statistics, as it does by default."""

    def _abstract(self, key):
        module = super()._abstract(key)
        stock = nnx.BatchNorm(1, rngs=nnx.Rngs(0)).promote_dtype
        layers: Any = nnx.iter_modules(module)
        for _, layer in layers:
            if isinstance(layer, nnx.BatchNorm):
                layer.promote_dtype = stock
        return module


def cast_whole(model, dtype):
    """Casts the norms of an Equinox model too."""
    return model if dtype is None else cast(model, dtype)


def test_products_in_float32_are_found():
    wrong = find_wrong_dtypes(*faulty(WideProducts))
    assert wrong and all(
        line.startswith("dot_general of float32") for line in wrong
    )


def test_rounded_statistics_are_found():
    wrong = "\n".join(find_wrong_dtypes(*faulty(StockNorms)))
    for name in ("running_mean", "running_var"):
        assert f"buffers.norm1.{name} cast to bfloat16" in wrong
    assert "params.norm2.weight cast to bfloat16" in wrong
    assert "dot_general" not in wrong


def test_rounded_parameters_of_norms_are_found(monkeypatch):
    monkeypatch.setattr(impl_equinox.backend, "narrow", cast_whole)
    wrong = "\n".join(find_wrong_dtypes(*faulty(EQUINOX)))
    assert "params.norm1.weight cast to bfloat16" in wrong
    assert "params.spectral_linear.weight cast to bfloat16" in wrong


@pytest.mark.exhaustive
def test_the_report_counts_wrong_operations():
    left, *data = faulty(WideProducts)
    right = build_narrow("stateful_mlp", "reference", **MLP)
    report = compare(left, right, *data, steps=1)
    found = report.first_divergence
    assert found is not None and found.quantity == "precision"
    assert found.leaf.startswith("flax: dot_general")
    assert "operations of flax or reference" in str(found)


@pytest.mark.exhaustive
def test_batch_statistics_in_the_compute_dtype_are_found(monkeypatch):
    """The program says nothing of a mean that is rounded, but the buffers
    do."""
    monkeypatch.setattr(
        "impl_equinox.precision._in_float32", lambda kind: kind
    )
    hyper: dict[str, Any] = {"batch_norm": "batch"}
    left, right = (
        build_narrow("stateful_mlp", name, **hyper)
        for name in ("equinox", "reference")
    )
    report = compare(left, right, *data(left.spec), steps=1)
    (row,) = [row for row in report.rows if row.quantity == "buffers"]
    assert not row.ok


# --- the tolerances ----------------------------------------------------------


def test_tolerances_are_multiples_of_the_compute_dtype():
    for name, ulps in agreement.MIXED_ULPS.items():
        for narrow in ("bfloat16", "float16"):
            key = agreement.mixed("float32", narrow)
            assert agreement.TOLERANCES[key][name] == (
                ulps * agreement.EPS[narrow]
            )
    assert agreement.mixed("float32", None) == "float32"


def test_the_yardstick_counts_where_errors_drift():
    key = agreement.mixed("float32", NARROW)
    assert agreement.explained(key, "trajectory", 1.0) == agreement.EXPLAINED
    assert agreement.explained(key, "trajectory", np.inf) == 0
    assert agreement.explained(key, "forward", 1.0) == 0
    assert agreement.explained("float32", "forward", 1.0) == (
        agreement.AMPLIFIED
    )
    steps = (0, 100)
    assert len({agreement.tolerance(key, "eval", n) for n in steps}) == 1


def test_the_yardstick_is_the_same_run_in_float32(assert_same):
    mixed = build_narrow("deep_mlp", "equinox")
    mixed.step(*data(mixed.spec))
    wide = in_float32(mixed)
    assert wide.settings.compute_dtype is None
    assert_same(wide.state(), mixed.state())


def test_trainers_of_other_compute_dtypes_are_refused():
    left = build_narrow("deep_mlp", "flax")
    right = build("deep_mlp", backend="equinox", **TINY["deep_mlp"])
    with pytest.raises(ValueError, match="compute_dtype of the right.*None"):
        compare(left, right, *data(left.spec))


@pytest.mark.exhaustive
@pytest.mark.parametrize("dialect", BATCH_NORM_DIALECTS)
@pytest.mark.parametrize("model", specs())
def test_long_runs_stay_within_the_yardstick(model, dialect):
    trainers = {
        name: build_narrow(model, name, batch_norm=dialect)
        for name in backends()
    }
    pairs = [(name, "reference") for name in JUDGED] + [("equinox", "flax")]
    spec = trainers["reference"].spec
    report = compare_all(trainers, pairs, *data(spec), steps=100)
    assert report.ok, str(report)
    needed = [
        row
        for row in report.rows
        if row.quantity not in COUNTS
        and row.worst.error > agreement.tolerance(report.dtype, row.quantity)
    ]
    # The rows whose error is explained by that of the definition only.
    print(model, dialect, [row.quantity for row in needed])


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", JUDGED)
def test_float16_agrees_too(backend):
    left, right = (
        build_narrow("stateful_mlp", name, "float16")
        for name in (backend, "reference")
    )
    report = compare(left, right, *data(left.spec), steps=STEPS)
    assert report.ok, str(report)
