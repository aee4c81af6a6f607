"""Repeated blocks that are scanned or rematerialized."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from flax import nnx

from common import build, compare
from common.agreement import tolerance
from common.layers import BATCH_NORM_DIALECTS
from common.models.deep_mlp import DeepMLP
from common.registry import backends
from common.training import optimizers
from impl_equinox.models.deep_mlp import DeepMLP as EquinoxDeepMLP
from tests import topologies
from tests.conftest import exhaustive_but

SIZES: dict[str, Any] = {"depth": 3, "size": 3}
SCAN: dict[str, Any] = {"scan": True, "remat": False}
REMAT: dict[str, Any] = {"scan": False, "remat": True}
BOTH: dict[str, Any] = {"scan": True, "remat": True}

WAYS = {"scan": SCAN, "remat": REMAT, "both": BOTH}
CASES = [
    "-".join(case)
    for case in itertools.product(backends(), BATCH_NORM_DIALECTS, WAYS)
]
# The flag of "ema" is a constant, of which `jax.checkpoint` makes a number.
QUICK = ["equinox-ema-both", "flax-ema-both"]


@pytest.fixture
def batch(make_batch):
    return make_batch(DeepMLP(**SIZES))


def train(trainer, batch, steps=2):
    for _ in range(steps):
        trainer.step(*batch)
    return trainer.state()


def assert_close(got, want):
    got, want = got.flat(), want.flat()
    assert got.keys() == want.keys()
    bound = tolerance("float64", "forward")
    for name, x in want.items():
        y = got[name]
        assert (y.dtype, y.shape) == (x.dtype, x.shape), name
        scale = max(1, np.max(np.abs(x), initial=0))
        error = np.max(np.abs(np.subtract(y, x, dtype=float)), initial=0)
        assert error <= bound * scale, name


# --- the same numbers -------------------------------------------------------


@pytest.mark.parametrize("case", exhaustive_but(CASES, *QUICK))
def test_a_step_and_a_prediction_are_those_of_the_plain_model(
    case, make, batch
):
    backend, dialect, way = case.split("-")
    options = {**SIZES, "batch_norm": dialect}
    plain = make("deep_mlp", "reference", **options)
    trainer = make("deep_mlp", backend, **options, **WAYS[way])
    assert_close(train(trainer, batch), train(plain, batch))
    error = trainer.predict(batch.xs) - plain.predict(batch.xs)
    assert np.max(np.abs(error)) <= tolerance("float64", "forward")


def test_statistics_in_reversed_order_are_found(monkeypatch, make, batch):
    """A scan that returns the new states of the blocks in another order."""
    scan = EquinoxDeepMLP._scan

    def reversed_scan(self, blocks, x, state):
        x, state = scan(self, blocks, x, state)
        changed = jax.tree.map(lambda x: x[::-1], state.substate(blocks))
        return x, state.update(changed)

    options = {"batch_norm": "ema", **SIZES}
    want = train(make("deep_mlp", "equinox", **options), batch, steps=1)
    monkeypatch.setattr(EquinoxDeepMLP, "_scan", reversed_scan)
    trainer = make("deep_mlp", "equinox", fresh=True, **options, **SCAN)
    with pytest.raises(AssertionError, match=r"running_(mean|var)"):
        assert_close(train(trainer, batch, steps=1), want)


@pytest.mark.exhaustive
def test_scanned_models_of_both_libraries_compare(make, batch):
    left = make("deep_mlp", "equinox", **SIZES, **SCAN)
    right = make("deep_mlp", "flax", **SIZES, **SCAN)
    assert compare(left, right, *batch, steps=2).ok


def test_a_scanned_model_compares_with_a_plain_one(make, batch):
    left = make("deep_mlp", "equinox", **SIZES, **SCAN)
    right = make("deep_mlp", "reference", **SIZES)
    assert left.spec != right.spec
    assert compare(left, right, *batch, steps=2).ok


# --- one State --------------------------------------------------------------


def test_a_state_moves_between_stacked_and_plain_blocks(
    make, fill, assert_same
):
    plain = make("deep_mlp", "equinox", batch_norm="ema", **SIZES)
    state = fill(plain.state())
    for backend in ("equinox", "flax"):
        other = make("deep_mlp", backend, batch_norm="ema", **SIZES, **SCAN)
        assert_same(other.load(state).state(), state)


def test_a_checkpoint_of_plain_blocks_is_resumed_by_stacked_ones(
    make, batch, tmp_path
):
    options = {"batch_size": 4, "checkpoint": tmp_path, "progress": False}
    make("deep_mlp", "reference", **SIZES).fit(*batch, epochs=1, **options)
    trainer = make("deep_mlp", "reference", **SIZES, **SCAN)
    losses = trainer.fit(*batch, epochs=2, resume=True, **options)
    assert losses.shape == (2,)
    with pytest.raises(ValueError, match="got checkpoints of deep_mlp"):
        other = make("deep_mlp", "reference", **{**SIZES, "depth": 2})
        other.fit(*batch, epochs=2, resume=True, **options)


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_the_library_holds_one_block(backend, make):
    native = make("deep_mlp", backend, **SIZES, **SCAN).native
    if backend == "equinox":
        assert native.model.blocks.linear.weight.shape == (3, 3, 3)
        assert isinstance(native.model.blocks, eqx.Module)
    else:
        assert native.module.blocks.linear.kernel.shape == (3, 3, 3)
        assert not isinstance(native.module.blocks, nnx.List)


def test_a_flag_that_is_no_bool_is_refused(assert_raises):
    assert_raises(
        lambda: build("deep_mlp", backend="reference", scan=2),
        ValueError,
        r"deep_mlp scan: got 2, expected True or False\. [A-Z].+\.",
    )


def test_same_model_ignores_the_program():
    spec = DeepMLP(depth=3, **BOTH)
    assert spec != DeepMLP(depth=3)
    assert spec.same_model() == DeepMLP(depth=3).same_model()
    assert spec.same_model() != DeepMLP(depth=2).same_model()


# --- several devices --------------------------------------------------------


def on_a_mesh(dialect):
    """Trains stacked blocks that four devices share, and returns States."""
    mesh = jax.make_mesh((4,), ("data",))
    xs = np.random.default_rng(0).normal(size=(8, 4))
    options = {"depth": 2, "size": 4, "batch_norm": dialect}
    found = []
    for backend, placed in (
        ("reference", {}),
        ("equinox", {"mesh": mesh, "shard": "fsdp", **BOTH}),
        ("flax", {"mesh": mesh, "shard": "fsdp", **SCAN}),
    ):
        trainer = build(
            "deep_mlp", backend=backend, dtype="float64", **options, **placed
        )
        trainer.load(train(trainer, (xs, np.sin(xs)), steps=1))
        state = train(trainer, (xs, np.sin(xs)), steps=1)
        split = [not x.sharding.is_fully_replicated for x in trainer.leaves]
        assert any(split) == bool(placed)
        found.append(state)
    return found


@pytest.mark.exhaustive
def test_stacked_blocks_are_split_over_devices():
    (states,) = topologies.run(on_a_mesh, "ema", devices=4)
    plain, *others = states
    for other in others:
        assert_close(other, plain)


# --- what a step costs ------------------------------------------------------


def lowered(backend, **options):
    trainer = build("deep_mlp", backend=backend, **options)
    xs = jax.ShapeDtypeStruct((512, options["size"]), "float32")
    return jax.jit(trainer.pure_step).lower(trainer.leaves, (xs, xs))


def temporary_bytes(backend, **options):
    options = {"depth": 32, "size": 16, **options}
    analysis: Any = lowered(backend, **options).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("backend", exhaustive_but(backends(), "equinox"))
def test_remat_needs_less_memory(backend):
    kept = temporary_bytes(backend, **SCAN)
    assert temporary_bytes(backend, **BOTH) < 0.8 * kept


def test_a_remat_that_keeps_everything_is_found(monkeypatch):
    kept = temporary_bytes("equinox", **SCAN)
    monkeypatch.setattr(eqx, "filter_checkpoint", lambda block: block)
    assert temporary_bytes("equinox", **BOTH) > 0.8 * kept


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_the_program_does_not_grow_with_depth(backend):
    """Neither the blocks nor the optimizer are repeated in it."""
    sizes = [
        len(lowered(backend, depth=depth, size=3, **SCAN).as_text())
        for depth in (3, 30)
    ]
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.exhaustive
def test_an_optimizer_that_takes_stacks_apart_is_found(monkeypatch):
    monkeypatch.setattr(
        optimizers, "is_same_in_layers", lambda *arguments: False
    )
    sizes = [
        len(lowered("equinox", depth=depth, size=3, **SCAN).as_text())
        for depth in (3, 30)
    ]
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.parametrize("field", DeepMLP.program_fields)
def test_a_program_field_has_a_default(field):
    fields = {x.name: x for x in dataclasses.fields(DeepMLP)}
    assert fields[field].default is False
