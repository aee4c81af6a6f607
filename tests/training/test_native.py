"""The native objects of a trainer, used as each library's docs use them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from common import State
from common.agreement import assert_close


def check_state(actual: State, expected: State) -> None:
    """Asserts that two States agree to rounding."""
    for group in ("params", "buffers", "opt", "rng"):
        assert_close(
            getattr(actual, group),
            getattr(expected, group),
            dtype="float64",
            quantity="update",
            what=group,
        )
    assert actual.step == expected.step


def test_native_objects_are_those_of_the_library(model, make):
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


def test_changing_a_native_object_does_not_change_the_trainer(
    make, assert_same
):
    trainer = make("deep_mlp", "flax")
    before = trainer.state()
    module, optimizer, rngs = trainer.native
    module.head.kernel[...] = jnp.zeros_like(module.head.kernel[...])
    module.head.bias[...] += 1
    rngs.dropout()
    optimizer.step[...] += 1
    assert_same(trainer.state(), before)


def test_a_handwritten_equinox_step_continues_the_run(make, make_batch):
    """The step is that of Equinox's documentation, with plain optax."""
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


def test_a_handwritten_flax_step_continues_the_run(make, make_batch):
    """The step is that of Flax's documentation."""
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


def test_a_new_flax_optimizer_takes_the_state(make, make_batch):
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
