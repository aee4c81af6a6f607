"""The flat leaves of a trainer, and its pure step over them."""

import re

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from common.agreement import assert_close


def check(actual, expected, *, quantity="update"):
    assert_close(actual, expected, dtype="float64", quantity=quantity)


def key_data(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jr.key_data(x) if is_key else x


def test_no_leaf_is_weakly_typed(model, backend, dtype, make, make_batch):
    trainer = make(model, backend, batch_norm="ema", dtype=dtype)
    assert not any(key_data(x).weak_type for x in trainer.leaves)
    trainer.load(trainer.state())
    assert not any(key_data(x).weak_type for x in trainer.leaves)


def test_leaves_are_copies(backend, make, make_batch):
    trainer = make("deep_mlp", backend)
    leaves = trainer.leaves
    trainer.step(*make_batch(trainer.spec))
    assert not any(x.is_deleted() for x in leaves)


def test_leaves_keep_their_dtype_with_x64_off(backend, make):
    trainer = make("deep_mlp", backend)
    with jax.enable_x64(False):
        leaves = trainer.leaves
    assert [x.dtype for x in leaves] == [x.dtype for x in trainer.leaves]
    assert jnp.dtype("float64") in {x.dtype for x in leaves}


def test_a_float32_step_has_no_64_bit_values(model, backend, make, make_batch):
    trainer = make(model, backend, dtype="float32", batch_norm="batch")
    batch = make_batch(trainer.spec, dtype="float32")
    jaxpr = str(jax.make_jaxpr(trainer.pure_step)(trainer.leaves, batch))
    assert "f32[" in jaxpr
    assert re.findall(r"\b[fi]64\[", jaxpr) == []


def test_the_pure_step_can_be_vmapped(backend, make, make_batch):
    trainers = [make("deep_mlp", backend, seed=seed) for seed in (0, 1)]
    xs, ys = make_batch(trainers[0].spec)
    stacked = [
        jnp.stack(leaves)
        for leaves in zip(*(t.leaves for t in trainers), strict=True)
    ]
    step = jax.jit(jax.vmap(trainers[0].pure_step, in_axes=(0, None)))
    stacked, _ = step(stacked, (xs, ys))
    stacked, metrics = step(stacked, (xs, ys))
    for i, trainer in enumerate(trainers):
        trainer.step(xs, ys)
        loss = trainer.step(xs, ys)["loss"]
        check(metrics["loss"][i], loss, quantity="loss")
        check(
            [key_data(x[i]) for x in stacked],
            [key_data(x) for x in trainer.leaves],
        )


@pytest.mark.parametrize("x64", [True, False], ids=["x64", "x32"])
def test_the_pure_step_can_be_jitted(
    x64, backend, make, make_batch, assert_same
):
    trainer = make("deep_mlp", backend, dtype="float32")
    batch = make_batch(trainer.spec, dtype="float32")
    with jax.enable_x64(x64):
        leaves, metrics = jax.jit(trainer.pure_step)(trainer.leaves, batch)
    loss = trainer.step(*batch)["loss"]
    assert np.array_equal(metrics["loss"], loss)
    for x, y in zip(leaves, trainer.leaves, strict=True):
        assert x.dtype == y.dtype
        assert np.array_equal(key_data(x), key_data(y))


def test_a_step_may_not_change_a_dtype(
    backend, make, make_batch, assert_raises
):
    """This optimizer turns its int count into a float."""
    counting = optax.GradientTransformation(
        lambda params: {"count": jnp.int32(0)},
        lambda updates, state, params=None: (
            updates,
            {"count": state["count"] + jnp.float32(1)},
        ),
    )
    trainer = make("deep_mlp", backend, optimizer=counting)
    xs, ys = make_batch(trainer.spec)
    assert_raises(
        lambda: trainer.step(xs, ys),
        TypeError,
        r"leaf .*count.* after a step: got float32\(\), expected "
        r"int32\(\)\. Keep the dtype in the loss and the optimizer\.",
    )


def test_the_step_returns_its_gradients(model, backend, make, make_batch):
    """SGD with a learning rate of 1 subtracts them from the parameters."""
    trainer = make(model, backend, optimizer=optax.sgd(1.0))
    batch = make_batch(trainer.spec)
    before = trainer.state().params
    leaves, metrics, gradients = jax.jit(trainer.pure.step_with_gradients)(
        trainer.leaves, batch
    )
    loss = trainer.step(*batch)["loss"]
    after = trainer.state().params
    check(metrics["loss"], loss, quantity="loss")
    check([key_data(x) for x in leaves], [key_data(x) for x in trainer.leaves])
    assert gradients.keys() == before.keys()
    for name, x in before.items():
        assert gradients[name].shape == x.shape, name
        check(x - gradients[name], after[name])
