"""Every model, backend, dtype and mode, compared with the reference.

The id of a test names its cell:
`test_forward[stateful_mlp-flax-float64-jit]`.
"""

import functools

import jax
import numpy as np
import pytest

from common import Report, backends, build, compare
from common.comparison.rows import QUANTITIES
from common.layers import BATCH_NORM_DIALECTS
from common.models import specs
from common.protocol import Spec
from common.training.building import DTYPES
from tests.conftest import TINY, exhaustive_but

STEPS = 4
JUDGED = [name for name in backends() if name != "reference"]
CELLS = [
    (model, backend, dtype, mode)
    for model in specs()
    for backend in JUDGED
    for dtype in DTYPES
    for mode in ("jit", "eager")
    # An eager convolution takes seconds a step, and float64 adds nothing.
    if mode == "jit" or (model == "stateful_mlp" and dtype == "float32")
]
QUICK = [
    cell
    for cell in CELLS
    if cell[3] == "jit"
    and (cell[0] == "stateful_mlp" or cell[2] == "float64")
    # Convolutions take long to compile. The next list has these.
    and cell[:2] != ("digits_cnn", "equinox")
]
OPTIMIZED = [
    ("stateful_mlp", "flax", "float32", "jit"),
    ("digits_cnn", "equinox", "float32", "jit"),
    ("deep_mlp", "equinox", "float64", "jit"),
]


def marked(cell):
    """Returns a cell with its marks."""
    marks = [] if cell in QUICK else [pytest.mark.exhaustive]
    if cell in OPTIMIZED:
        marks.append(pytest.mark.optimized)
    return pytest.param(cell, marks=marks, id="-".join(cell))


# The scope makes pytest run the tests of a cell one after the other, so that
# its report is computed once.
matrix = pytest.mark.parametrize(
    "cell", [marked(cell) for cell in CELLS], scope="module"
)


@functools.cache
def report(cell: tuple[str, str, str, str], **hyper) -> Report:
    """Compares a cell with the reference for a few steps, once."""
    model, backend, dtype, mode = cell
    left, right = (
        build(model, backend=name, dtype=dtype, **TINY.get(model, {}) | hyper)
        for name in (backend, "reference")
    )
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(6, *left.spec.inputs.shape)).astype(dtype)
    if left.spec.loss == "cross_entropy":
        ys = rng.integers(0, left.predict(xs).shape[-1], 6, np.int32)
    else:
        ys = rng.normal(size=left.predict(xs).shape).astype(dtype)
    # A setting and not a context: `compare` works in threads.
    jax.config.update("jax_disable_jit", mode == "eager")
    try:
        return compare(left, right, xs, ys, steps=STEPS)
    finally:
        jax.config.update("jax_disable_jit", False)


def check(quantity: str, report: Report) -> None:
    (row,) = [row for row in report.rows if row.quantity == quantity]
    assert row.ok, f"{row}\n{report}"


@matrix
def test_state(cell):
    """It starts from the spec's values, and its copies are exact."""
    check("state", report(cell))


@matrix
def test_forward(cell):
    check("forward", report(cell))


@matrix
def test_loss(cell):
    check("loss", report(cell))


@matrix
def test_buffers(cell):
    check("buffers", report(cell))


@matrix
def test_gradients(cell):
    check("gradients", report(cell))


@matrix
def test_update(cell):
    check("update", report(cell))


@matrix
def test_training_changes_every_buffer(cell):
    check("stale", report(cell))


@matrix
def test_trajectory(cell):
    found = report(cell)
    check("trajectory", found)
    check("parameters", found)
    check("moments", found)
    assert all(len(losses) == STEPS for losses in found.losses.values())
    assert np.isfinite(list(found.losses.values())).all()


@matrix
def test_eval(cell):
    check("eval", report(cell))


@matrix
def test_inference_changes_nothing(cell):
    check("overwritten", report(cell))


@pytest.mark.parametrize(
    "dialect", exhaustive_but(BATCH_NORM_DIALECTS, "torch")
)
@pytest.mark.parametrize("backend", exhaustive_but(JUDGED, "flax"))
@pytest.mark.parametrize("model", exhaustive_but(specs(), "stateful_mlp"))
def test_batch_norm_dialect(model, backend, dialect):
    """Every model has every dialect in every backend."""
    found = report((model, backend, "float64", "jit"), batch_norm=dialect)
    assert found.ok, str(found)


def test_every_quantity_is_judged():
    """Every quantity needs a test above."""
    found = report(("stateful_mlp", "flax", "float64", "jit"))
    assert {row.quantity for row in found.rows} == set(QUANTITIES)


def test_matrix_is_complete():
    """No value of a registry is missing from the matrix."""
    models, judged, dtypes, modes = map(set, zip(*CELLS, strict=True))
    assert models == set(specs())
    assert judged | {"reference"} == set(backends())
    assert dtypes == set(DTYPES)
    assert modes == {"jit", "eager"}


@pytest.mark.exhaustive
def test_eager_is_eager(monkeypatch):
    """In eager mode, every step calls the forward; jit calls it once."""
    calls = {"jit": 0, "eager": 0}
    kind = type(build("deep_mlp", backend="reference").spec)
    forward = kind.forward

    for mode in calls:

        def counting(self: Spec, *args, mode=mode, **kwargs):
            calls[mode] += 1
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counting)
        report.__wrapped__(("deep_mlp", "flax", "float32", mode))
    assert calls["eager"] >= calls["jit"] + STEPS - 1
