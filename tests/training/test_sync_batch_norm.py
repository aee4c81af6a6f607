"""`build(sync_batch_norm=False)`: statistics of each device alone."""

import re
from typing import Any

import jax
import numpy as np
import optax
import pytest

from common import build
from common.agreement import assert_close
from common.errors import BatchError
from common.protocol import Settings
from common.registry import LIBRARIES
from common.training.trainer import Trainer
from tests import topologies
from tests.conftest import exhaustive_but
from tests.training.test_accumulate import XS, YS, make_dropped

SGD = optax.sgd(0.1)
MODEL = "digits_cnn"
SIZES: dict[str, Any] = {"channels": (2, 3)}
STATISTIC = "blocks.0.norm.running_var"


class InGroups(Settings):
    """As on a mesh of two devices, without the devices."""

    @property
    def groups(self) -> int:
        return 2


def in_groups(trainer: Trainer, **options) -> Trainer:
    """Returns a trainer with the statistics of two devices."""
    return Trainer(
        trainer.subject,
        optimizer=trainer.optimizer,
        loss=trainer.backend.loss,
        metrics=trainer.backend.metrics,
        seed=trainer.seed,
        settings=InGroups(**options),
    )


def group_variance(trainer, xs):
    """Returns the mean of the variances that two devices see."""
    weight = trainer.state().params["blocks.0.linear.weight"]
    groups = np.split(xs @ weight.T, 2)
    return np.mean([x.var(0) for x in groups], 0)


def test_running_statistics_are_the_mean_over_devices(make, make_batch):
    whole = make("deep_mlp", "reference")
    batch = make_batch(whole.spec)
    trainer = in_groups(whole)
    m = whole.spec.momentum
    expected = m + (1 - m) * group_variance(trainer, batch.xs)
    trainer.step(*batch)
    whole.step(*batch)
    found = trainer.state().buffers[STATISTIC]
    assert_close(found, expected, dtype="float64", quantity="buffers")
    with pytest.raises(AssertionError):  # the check finds those of the batch
        assert_close(
            whole.state().buffers[STATISTIC],
            expected,
            dtype="float64",
            quantity="buffers",
        )


@pytest.mark.parametrize("backend", ["equinox", "flax"])
@pytest.mark.parametrize("parts", exhaustive_but([1, 2], 1))
def test_devices_agree_with_the_reference(backend, parts, make, make_batch):
    states = []
    for name in ("reference", backend):
        trainer = in_groups(make(MODEL, name), accumulate=parts)
        trainer.step(*make_batch(trainer.spec))
        states.append(trainer.state())
    for group, quantity in (("params", "update"), ("buffers", "buffers")):
        expected, got = (getattr(state, group) for state in states)
        assert_close(got, expected, dtype="float64", quantity=quantity)


@pytest.mark.parametrize("library", exhaustive_but(LIBRARIES, "equinox"))
def test_masks_are_those_of_the_whole_batch(library):
    """A model without batch statistics gives the numbers of the whole."""
    model = make_dropped(library)
    whole = build(model=model, loss="mse", optimizer=SGD, dtype="float64")
    trainer = in_groups(whole)
    for one in (whole, trainer):
        one.step(XS, YS)
    got, want = trainer.state(), whole.state()
    assert_close(got.params, want.params, dtype="float64", quantity="update")
    assert got.rng.keys() == want.rng.keys()
    for name, x in want.rng.items():
        assert np.array_equal(got.rng[name], x), name


def test_without_a_mesh_there_is_one_group(make):
    trainer = make("deep_mlp", "reference", sync_batch_norm=False)
    assert trainer.settings.groups == 1
    assert repr(trainer).endswith("sync_batch_norm=False)")


def test_a_batch_that_the_devices_do_not_divide_is_refused(make, make_batch):
    trainer = in_groups(make("deep_mlp", "reference"), accumulate=2)
    xs, ys = make_batch(trainer.spec, size=6)
    message = "multiple of 4 for accumulate=2 times 2 devices with sync_batch"
    with pytest.raises(BatchError, match=message):
        trainer.step(xs, ys)


@pytest.mark.parametrize("value", [None, 0, "no"])
def test_the_setting_is_a_bool(value):
    with pytest.raises(ValueError, match="sync_batch_norm: got"):
        build(backend="reference", sync_batch_norm=value)


# On two devices

OPTIONS: dict[str, Any] = {
    "spec": MODEL,
    "backend": "flax",
    "dtype": "float64",
    "ensemble": 2,
    "accumulate": 2,
    **SIZES,
}


def forward_and_step(xs, ys):
    """Returns the collectives of a forward pass, and a State after a step."""
    mesh = jax.make_mesh((2,), ("data",))
    found = {}
    for backend in ("reference", "equinox", "flax"):
        for sync in (True, False):
            trainer = build(
                MODEL,
                backend=backend,
                dtype="float64",
                mesh=mesh,
                sync_batch_norm=sync,
                **SIZES,
            )
            if backend == "reference":
                found["forward", sync] = collectives(forward_of(trainer, xs))
            batch = trainer.placement.batch((xs, ys), training=True)
            step = trainer._step.lower(trainer._leaves, batch)
            found[backend, "step", sync] = collectives(step)
            trainer.step(xs, ys)
            found[backend, sync] = trainer.state()
    ensemble = build(mesh=mesh, shard="fsdp", **OPTIONS)
    ensemble.step(xs, ys)
    found["ensemble"] = ensemble.state()
    return found


def collectives(lowered):
    """Returns what a program sends between devices."""
    return re.findall(r" all-\w+\(", lowered.compile().as_text() or "")


def forward_of(trainer, xs):
    """Returns the program of a training forward pass."""
    backend, placement = trainer.backend, trainer.placement

    def forward(leaves, xs):
        native = trainer.pure.rebuild(leaves)
        predictions, _ = backend._forward(
            native.params, native.buffers, xs, native.key
        )
        return predictions

    jitted = jax.jit(forward, out_shardings=placement._split)
    xs = placement.batch(xs, training=True)
    return jitted.lower(trainer._leaves, xs)


@pytest.mark.exhaustive
def test_devices_compute_statistics_without_communication(make, make_batch):
    whole = make(MODEL, "reference")
    batch = make_batch(whole.spec)
    [found] = topologies.run(forward_and_step, *batch, devices=2)
    assert len(found["forward", True]) >= 2
    assert found["forward", False] == []
    for backend in ("reference", "equinox", "flax"):
        synchronized = found[backend, "step", True]
        assert len(found[backend, "step", False]) < len(synchronized), backend
    ensemble = build(**OPTIONS)
    ensemble.step(*batch)
    assert_close(
        found["ensemble"].params,
        ensemble.state().params,
        dtype="float64",
        quantity="update",
    )
    expected = {True: whole, False: in_groups(whole)}
    for trainer in expected.values():
        trainer.step(*batch)
    for backend in ("reference", "equinox", "flax"):
        for sync, trainer in expected.items():
            got, want = found[backend, sync], trainer.state()
            assert_close(
                got.params, want.params, dtype="float64", quantity="update"
            )
            assert_close(
                got.buffers, want.buffers, dtype="float64", quantity="buffers"
            )
