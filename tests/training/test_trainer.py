"""The one handle: steps, inference, copies, and the library's own objects."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import layers
from common.agreement import assert_close
from common.registry import backends
from impl_equinox import layers as equinox_layers


def check(actual, expected, *, what="", quantity="update", dtype="float64"):
    assert_close(actual, expected, dtype=dtype, quantity=quantity, what=what)


def check_state(actual, expected, dtype="float64"):
    """Asserts that two States agree but for round-off."""
    for group in ("params", "buffers", "opt", "rng"):
        check(
            getattr(actual, group),
            getattr(expected, group),
            what=group,
            dtype=dtype,
        )
    assert actual.step == expected.step


@pytest.fixture
def simple(backend, make, make_batch):
    """The quickest trainer of a backend, and a batch."""
    trainer = make("deep_mlp", backend)
    return trainer, make_batch(trainer.spec)


# --- step -------------------------------------------------------------------


def test_a_step_changes_all_that_it_should(model, backend, make, make_batch):
    trainer = make(model, backend)
    before = trainer.state().flat()
    metrics = trainer.step(*make_batch(trainer.spec))
    assert metrics.keys() == {"loss", *trainer.spec.metrics}
    assert all(x.shape == () for x in metrics.values())
    after = trainer.state().flat()
    same = {n for n, x in after.items() if np.array_equal(x, before[n])}
    # A bias before a BatchNorm has no gradient.
    noise = {
        f"{group}.{name}"
        for name in trainer.spec.zero_gradient
        for group in ("params", "opt.optimizer.0.mu", "opt.optimizer.0.nu")
    }
    assert same - noise == {"rng.key", "rng.epoch", "rng.position"}
    assert after["step"] == 1


def test_metrics_are_those_before_the_update(simple):
    trainer, (xs, ys) = simple
    # "standard" trains on the batch's own statistics, at any step.
    first = trainer.step(xs, ys)["loss"]
    second = trainer.step(xs, ys)["loss"]
    assert second < first


def test_a_second_step_compiles_nothing(backend, make, make_batch, compiles):
    trainer = make("deep_mlp", backend, fresh=True)
    batch = make_batch(trainer.spec)
    with compiles() as compiled:
        trainer.step(*batch)
    assert compiled  # the counter counts
    with compiles() as compiled:
        trainer.step(*batch)
        trainer.step(*(jax.device_put(x) for x in batch))
    assert compiled == []
    with compiles() as compiled:
        trainer.step(*(x[:4] for x in batch))
    assert len(compiled) == 1


def test_loading_a_state_compiles_no_step(simple, compiles):
    """What was loaded has the types that the step was compiled for."""
    trainer, batch = simple
    trainer.step(*batch)
    trainer.load(trainer.state())
    with compiles() as compiled:
        trainer.step(*batch)
    assert compiled == []


def test_no_leaf_is_weakly_typed(model, backend, dtype, make, make_batch):
    trainer = make(model, backend, batch_norm="ema", dtype=dtype)
    assert not any(key_data(x).weak_type for x in trainer.leaves)
    trainer.load(trainer.state())
    assert not any(key_data(x).weak_type for x in trainer.leaves)


def test_leaves_are_copies(simple):
    trainer, batch = simple
    leaves = trainer.leaves
    trainer.step(*batch)
    assert not any(x.is_deleted() for x in leaves)


def test_own_metrics(backend, make, make_batch):
    def worst(predictions, targets):
        return jnp.max(jnp.abs(predictions - targets))

    trainer = make("deep_mlp", backend, metrics={"worst": worst})
    xs, ys = make_batch(trainer.spec)
    expected = np.max(np.abs(np.asarray(trainer.predict(xs)) - ys))
    check(trainer.evaluate(xs, ys)["worst"], expected, quantity="forward")
    assert trainer.step(xs, ys).keys() == {"loss", "worst"}


def test_own_loss(backend, make, make_batch):
    def absolute(predictions, targets):
        return jnp.mean(jnp.abs(predictions - targets))

    trainer = make("deep_mlp", backend, loss=absolute)
    xs, ys = make_batch(trainer.spec)
    expected = np.mean(np.abs(np.asarray(trainer.predict(xs)) - ys))
    check(trainer.evaluate(xs, ys)["loss"], expected, quantity="loss")


# --- inference --------------------------------------------------------------


def test_inference_leaves_every_leaf_alone(
    model, backend, make, make_batch, assert_same
):
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    before = trainer.state()
    first = trainer.predict(xs)
    metrics = trainer.evaluate(xs, ys)
    assert_same(trainer.state(), before)
    assert np.array_equal(trainer.predict(xs), first)
    loss = trainer.backend.loss(first, jnp.array(ys))
    check(metrics["loss"], loss, quantity="loss")


def test_inference_sees_each_example_alone(model, backend, make, make_batch):
    """No batch statistics, no dropout."""
    trainer = make(model, backend)
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    others = np.concatenate([xs[:2], -xs[2:]])
    check(
        trainer.predict(others)[:2],
        trainer.predict(xs)[:2],
        quantity="forward",
    )


# --- dtype ------------------------------------------------------------------


def test_float32_is_the_same_with_x64_on_and_off(
    backend, make, make_batch, assert_same
):
    """Its masks too, which x64 alone would draw from other bits."""
    runs = []
    for x64 in (True, False):
        with jax.enable_x64(x64):
            trainer = make("digits_cnn", backend, dtype="float32")
            batch = make_batch(trainer.spec, dtype="float32")
            losses = [trainer.step(*batch)["loss"] for _ in range(3)]
            state = trainer.state()
            runs.append((losses, trainer.predict(batch.xs), state))
            assert all(x.dtype == "float32" for x in losses)
    (on, predictions_on, state_on), (off, predictions_off, state_off) = runs
    assert [x.tobytes() for x in map(np.asarray, on)] == [
        x.tobytes() for x in map(np.asarray, off)
    ]
    assert np.array_equal(predictions_on, predictions_off)
    assert_same(state_on, state_off)


def test_a_float32_step_computes_nothing_in_64_bits(
    model, backend, make, make_batch
):
    trainer = make(model, backend, dtype="float32", batch_norm="batch")
    batch = make_batch(trainer.spec, dtype="float32")
    jaxpr = str(jax.make_jaxpr(trainer.pure_step)(trainer.leaves, batch))
    assert "f32[" in jaxpr
    assert re.findall(r"\b[fi]64\[", jaxpr) == []


# --- native -----------------------------------------------------------------


def test_native_is_the_librarys_own(model, make):
    model_, state, opt_state, key, step = make(model, "equinox").native
    assert isinstance(model_, eqx.Module)
    assert isinstance(state, eqx.nn.State)
    assert type(model_).__module__ == f"impl_equinox.models.{model}"
    params = eqx.filter(model_, eqx.is_inexact_array)
    moments = optax.tree.get(opt_state, "mu")
    assert jax.tree.structure(moments) == jax.tree.structure(params)
    assert jr.key_data(key).shape == (2,)
    assert step == 0

    module, optimizer, rngs = make(model, "flax").native
    assert isinstance(module, nnx.Module)
    assert type(module).__module__ == f"impl_flax.models.{model}"
    assert isinstance(optimizer, nnx.Optimizer)
    assert isinstance(rngs, nnx.Rngs)


def test_mutating_native_does_not_reach_the_trainer(make, assert_same):
    trainer = make("deep_mlp", "flax")
    before = trainer.state()
    module, optimizer, rngs = trainer.native
    module.head.kernel[...] = jnp.zeros_like(module.head.kernel[...])
    module.head.bias[...] += 1
    rngs.dropout()
    optimizer.step[...] += 1
    assert_same(trainer.state(), before)


def test_native_equinox_goes_on_by_hand(make, make_batch):
    """As Equinox's documentation writes it, with plain optax."""
    optim = optax.adam(1e-2)
    trainer = make("stateful_mlp", "equinox", optimizer=optim)
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    model, state, opt_state, key, step = trainer.native

    def compute_loss(model, state, xs, ys):
        batch_model = jax.vmap(
            model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        )
        pred_ys, state = batch_model(xs, state)
        return jnp.mean((pred_ys - ys) ** 2), state

    @eqx.filter_jit
    def make_step(model, state, opt_state, xs, ys):
        grads, state = eqx.filter_grad(compute_loss, has_aux=True)(
            model, state, xs, ys
        )
        updates, opt_state = optim.update(grads, opt_state)
        model = eqx.apply_updates(model, updates)
        return model, state, opt_state

    by_hand = make_step(model, state, opt_state, xs, ys)
    trainer.step(xs, ys)
    check_state(
        trainer.backend.state(type(trainer.native)(*by_hand, key, step + 1)),
        trainer.backend.state(trainer.native),
    )


def test_native_flax_goes_on_by_hand(make, make_batch):
    """As Flax's documentation writes it, with the optimizer it came with."""
    trainer = make("stateful_mlp", "flax", optimizer=optax.adam(1e-2))
    xs, ys = make_batch(trainer.spec)
    trainer.step(xs, ys)
    native = trainer.native

    @nnx.jit
    def train_step(module, optimizer, xs, ys):
        def loss_fn(module):
            return jnp.mean((module(xs) - ys) ** 2)

        grads = nnx.grad(loss_fn)(module)
        optimizer.update(module, grads)

    native.module.train()
    train_step(native.module, native.optimizer, xs, ys)
    trainer.step(xs, ys)
    check_state(
        trainer.backend.state(native),
        trainer.backend.state(trainer.native),
    )


def test_native_flax_goes_on_with_a_plain_optimizer(make, make_batch):
    """An `nnx.Optimizer` of one's own takes the state as it is."""
    trainer = make("stateful_mlp", "flax", optimizer=optax.adam(1e-2))
    xs, ys = map(jnp.array, make_batch(trainer.spec))
    trainer.step(xs, ys)
    module, ours, rngs = trainer.native
    plain = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)
    assert jax.tree.structure(nnx.state(plain)) == jax.tree.structure(
        nnx.state(ours)
    )
    nnx.update(plain, nnx.state(ours))

    grads = nnx.grad(lambda m: jnp.mean((m(xs) - ys) ** 2))(module)
    plain.update(module, grads)
    trainer.step(xs, ys)
    check_state(
        trainer.backend.state(type(trainer.native)(module, plain, rngs)),
        trainer.backend.state(trainer.native),
    )


# --- names ------------------------------------------------------------------


def test_nnx_is_flax(make, assert_same):
    trainer = make("deep_mlp", "nnx")
    assert trainer.backend.name == "flax"
    assert_same(trainer.state(), make("deep_mlp", "flax").state())


def test_a_backend_knows_its_name(backend, make):
    assert make("deep_mlp", backend).backend.name == backend


def test_with_optimizer(backend, make, make_batch, assert_same):
    trainer = make("deep_mlp", backend)
    batch = make_batch(trainer.spec)
    other = trainer.with_optimizer(optax.sgd(1e-2))
    expected = make("deep_mlp", backend, optimizer=optax.sgd(1e-2))
    other.step(*batch)
    expected.step(*batch)
    assert_same(other.state(), expected.state())
    assert trainer.state().step == 0


def test_with_optimizer_checks_it(make):
    trainer = make("deep_mlp", "reference")
    per_example = optax.contrib.differentially_private_aggregate(
        1.0, 0.1, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="optimizer update of"):
        trainer.with_optimizer(per_example)


def test_leaves_keep_their_dtype_once_x64_is_off(backend, make):
    trainer = make("deep_mlp", backend)
    with jax.enable_x64(False):
        leaves = trainer.leaves
    assert [x.dtype for x in leaves] == [x.dtype for x in trainer.leaves]
    assert jnp.dtype("float64") in {x.dtype for x in leaves}


def test_repr_is_one_line(backend, make, make_batch):
    trainer = make("deep_mlp", backend)
    trainer.step(*make_batch(trainer.spec))
    assert repr(trainer) == (
        f"Trainer('deep_mlp', backend={backend!r}, dtype='float64', step=1)"
    )


# --- the pure step ----------------------------------------------------------


def test_pure_step_makes_an_ensemble(backend, make, make_batch):
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
def test_pure_step_in_a_jit_of_ones_own(
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


def key_data(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jr.key_data(x) if is_key else x


# --- dropout ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("p", [0.25, 0.5])
def test_the_libraries_layers_draw_the_same_mask(p, shape, dtype):
    key = jr.key(7)
    x = jnp.ones(shape, dtype)
    with jax.enable_x64(dtype == "float64"):
        (dropout_key,) = jr.split(key, 1)
        expected = layers.dropout(x, dropout_key, p)
        flax = nnx.Dropout(p)(x, deterministic=False, rngs=nnx.Rngs(key))
        layer = equinox_layers.Dropout(p, axis_name="batch")
        equinox = jax.vmap(
            lambda x: layer(x, key=dropout_key), axis_name="batch"
        )(x)
    assert 0 < np.count_nonzero(expected) < x.size
    assert np.array_equal(flax, expected)
    assert np.array_equal(equinox, expected)


def kept(row):
    """A metric: which features of an example are not 0, as a binary number."""
    digits = 2.0 ** np.arange(16)
    return lambda predictions, targets: jnp.dot(
        predictions[row] != 0, jnp.asarray(digits, predictions.dtype)
    )


def masks(trainer, steps=3):
    """The masks of some training steps, from where no 0 is but a dropped one.

    With one channel, as many classes as features and an identity in front of
    them, a prediction is a feature. The learning rate is 0.
    """
    state = trainer.state()
    state.params["linear.weight"][...] = np.eye(16)
    state.params["linear.bias"][...] = 0
    state.params["norm2.bias"][...] = 100
    trainer.load(state)
    xs = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
    xs, ys = xs.astype(trainer.dtype), np.zeros(8, np.int32)
    metrics = [trainer.step(xs, ys) for _ in range(steps)]
    numbers = [[int(it[str(row)]) for row in range(8)] for it in metrics]
    return np.asarray(numbers)[..., None] >> np.arange(16) & 1


def test_the_models_draw_the_same_masks(make):
    trainers = [
        make(
            "digits_cnn",
            backend,
            channels=(1, 1),
            classes=16,
            dropout=0.5,
            dtype="float32",
            optimizer=optax.sgd(0.0),
            metrics={str(row): kept(row) for row in range(8)},
        )
        for backend in backends()
    ]
    expected, *others = (masks(trainer) for trainer in trainers)
    for actual, trainer in zip(others, trainers[1:], strict=True):
        assert np.array_equal(actual, expected), trainer.backend.name
    # About a half is dropped, other features in every step of every run.
    assert abs(expected.mean() - 0.5) < 6 * 0.5 / np.sqrt(expected.size)
    state = trainers[0].state()
    state.rng["key"][...] += 1
    other = masks(trainers[0].load(state))
    steps = [mask.tobytes() for mask in (*expected, *other)]
    assert len(set(steps)) == len(steps)
