"""`build(model=...)`: a model of the user, trained in its own library."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.agreement import assert_close
from common.errors import Interrupted, NonFiniteLossError
from tests.conftest import exhaustive_but, one_in
from tests.training import user_models
from tests.training.user_models import MODELS, XS, YS, inputs_of, loss_of

LIBRARIES = ("equinox", "flax")
each_library = pytest.mark.parametrize("library", LIBRARIES)


def trainer_of(name, library, **options):
    options = {"loss": loss_of(name), "optimizer": optax.adam(0.1), **options}
    return build(model=user_models.make(name, library), **options)


# --- the training API -------------------------------------------------------


@each_library
@pytest.mark.parametrize("name", exhaustive_but(MODELS, "Stateful"))
def test_every_method_takes_a_users_model(
    name, library, tmp_path, assert_same
):
    xs = inputs_of(name)
    trainer = trainer_of(name, library, metrics={"m": loss_of(name)})
    first = trainer.step(xs, YS)
    assert first.keys() == {"loss", "m"} and first["loss"] == first["m"]
    losses = trainer.fit(xs, YS, epochs=4, batch_size=4, progress=False)
    assert losses.shape == (8,) and np.isfinite(losses).all()
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    again = trainer_of(name, library, metrics={"m": loss_of(name)}).load(path)
    assert_same(again.state(), trainer.state())
    assert trainer.evaluate(xs, YS) == again.evaluate(xs, YS)
    assert trainer.step(xs, YS) == again.step(xs, YS)
    assert_same(again.state(), trainer.state())
    outputs = trainer.predict(xs)
    assert all(len(x) == 8 for x in jax.tree.leaves(outputs))
    assert repr(again).endswith(
        f"backend='{library}', dtype='float32', step=10)"
    )


@each_library
@pytest.mark.parametrize("name", MODELS)
def test_native_is_of_the_users_own_class(name, library):
    model = user_models.make(name, library)
    trainer = trainer_of(name, library)
    xs = inputs_of(name)
    trainer.step(xs, YS)
    native = trainer.native
    assert type(native) is type(model)
    if isinstance(model, tuple):
        assert [type(x) for x in native] == [type(x) for x in model]
        native = native[0]
    if library == "flax":
        native.eval()
        got = native(xs, train=False) if name == "Trees" else native(xs)
    elif name == "Stateful":
        call = eqx.nn.inference_mode(native)
        got = jax.vmap(call, in_axes=(0, None))(xs, trainer.native[1])[0]
    elif name == "Trees":
        got = jax.vmap(native, in_axes=(0, None))(xs, False)
    else:
        got = jax.vmap(native)(xs)
    assert_close(
        dict(enumerate(jax.tree.leaves(got))),
        dict(enumerate(jax.tree.leaves(trainer.predict(xs)))),
        dtype="float32",
        quantity="forward",
        what="outputs",
    )


@each_library
def test_the_users_model_is_not_changed(library):
    model = user_models.make("Stateful", library)
    before = [np.array(x) for x in array_leaves(model)]
    trainer = build(model, loss="mse", optimizer=optax.sgd(0.1))
    start = trainer.state().flat()
    trainer.step(XS, YS)
    for x, y in zip(array_leaves(model), before, strict=True):
        np.testing.assert_array_equal(np.asarray(x), y)
    if library == "flax":  # and the trainer is not changed by the user
        model.linear.kernel[...] *= 0
        del model.norm
    native = trainer.native
    again = build(native, loss="mse", optimizer=optax.sgd(0.1)).state()
    now = trainer.state()
    assert again.params.keys() == now.params.keys()
    for name, x in now.params.items():
        assert (np.asarray(again.params[name]) == x).all()
    assert any((now.flat()[n] != x).any() for n, x in start.items())


def array_leaves(model):
    tree = nnx.state(model) if isinstance(model, nnx.Module) else model
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_array(x)]
    return [
        jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in leaves
    ]


@each_library
def test_a_step_is_that_of_the_librarys_documentation(library):
    """By hand, with plain optax, for a model with state."""
    model = user_models.make("Stateful", library)
    optimizer = optax.adam(0.1)
    trainer = build(model, loss="mse", optimizer=optimizer, seed=3)
    key = jr.fold_in(jr.split(jr.key(3))[1], 0)
    metrics = trainer.step(XS, YS)
    with jax.enable_x64(False):  # in which a float32 model is trained
        loss, updated = take_step_by_hand(model, library, optimizer, key)
    expected = build(updated, loss="mse", optimizer=optimizer).state()
    for group in ("params", "buffers"):
        assert_close(
            getattr(trainer.state(), group),
            getattr(expected, group),
            dtype="float32",
            quantity="update",
            what=group,
        )
    assert_close(
        {"loss": metrics["loss"]}, {"loss": loss},
        dtype="float32", quantity="forward", what="loss",
    )  # fmt: skip


def take_step_by_hand(model, library, optimizer, key):
    if library == "flax":

        def flax_loss(module):
            return jnp.mean((module(XS) - YS) ** 2)

        loss, grads = nnx.value_and_grad(flax_loss)(model)
        nnx.Optimizer(model, optimizer, wrt=nnx.Param).update(model, grads)
        updated = model
    else:
        module, state = model

        def loss_of(module):
            call = jax.vmap(
                lambda x, key: module(x, state, key=key),
                axis_name="batch",
                out_axes=(0, None),
            )
            outputs, new = call(XS, jr.split(key, len(XS)))
            return jnp.mean((outputs - YS) ** 2), new

        (loss, state), grads = eqx.filter_value_and_grad(
            loss_of, has_aux=True
        )(module)
        opt_state = optimizer.init(eqx.filter(module, eqx.is_inexact_array))
        updates, _ = optimizer.update(grads, opt_state)
        updated = eqx.apply_updates(module, updates), state
    return loss, updated


def test_both_libraries_take_the_same_steps():
    """Of one architecture, once a State has crossed."""
    left = trainer_of("Trees", "equinox", dtype="float64")
    right = trainer_of("Trees", "flax", dtype="float64").load(left.state())
    xs, ys = jax.tree.map(
        lambda x: x.astype("float64"), (inputs_of("Trees"), YS)
    )
    a, b = ([x.step(xs, ys)["loss"] for _ in range(5)] for x in (left, right))
    assert_close(
        {"loss": np.array(a)}, {"loss": np.array(b)},
        dtype="float64", quantity="trajectory", what="loss", steps=5,
    )  # fmt: skip
    got, want = left.state(), right.state()
    assert got.opt.keys() == want.opt.keys()
    assert_close(
        got.params, want.params,
        dtype="float64", quantity="trajectory", what="params", steps=5,
    )  # fmt: skip


# --- calls ------------------------------------------------------------------


def scaled(model, xs, *, training, key):
    """Passes a scalar beside the examples, and uses the key itself."""
    x, scale = xs["x"], xs["scale"]
    if training:
        x = x + 0.1 * jr.normal(key, x.shape, x.dtype)
    apply = model if isinstance(model, nnx.Module) else jax.vmap(model)
    return scale * apply(x), None


@each_library
def test_a_call_of_the_users_own(library):
    trainer = trainer_of("Mlp", library, call=scaled)
    xs = {"x": XS, "scale": np.float32(2)}
    start = trainer.evaluate(xs, YS)["loss"]
    noisy = [trainer.step(xs, YS)["loss"] for _ in range(2)]
    assert noisy[0] != start
    plain = trainer_of("Mlp", library)
    np.testing.assert_array_equal(
        trainer_of("Mlp", library, call=scaled).predict(xs),
        2 * plain.predict(XS),
    )


@each_library
def test_dropout_draws_anew_at_every_step(library):
    trainer = trainer_of("Stateful", library, optimizer=optax.sgd(0.0))
    first, second = trainer.step(XS, YS), trainer.step(XS, YS)
    assert first["loss"] != second["loss"]
    assert (trainer.predict(XS) == trainer.predict(XS)).all()
    other = trainer_of("Stateful", library, optimizer=optax.sgd(0.0))
    assert other.step(XS, YS)["loss"] == first["loss"]


class Noisy(nnx.Module):
    """Takes its random numbers as an argument of the call."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None):
        return self.dropout(self.linear(x), rngs=rngs)


def test_a_flax_call_gets_the_key_of_the_step():
    trainer = build(Noisy(nnx.Rngs(0)), loss="mse", optimizer=optax.sgd(0.0))
    assert trainer.step(XS, YS)["loss"] != trainer.step(XS, YS)["loss"]
    assert trainer.predict(XS).shape == (8, 2)


# --- dtypes -----------------------------------------------------------------


class Mixed(nnx.Module):
    """Parameters of two dtypes, a counter, and a mask of infinities."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, param_dtype=jnp.bfloat16, rngs=rngs)
        self.second = nnx.Linear(4, 2, rngs=rngs)
        self.calls = nnx.BatchStat(jnp.zeros((), "int32"))
        self.mask = jnp.asarray([0.0, -jnp.inf, 0.0, 0.0], "float32")

    def __call__(self, x):
        self.calls[...] += 1
        x = self.first(x).astype("float32")
        return self.second(jax.nn.softmax(x + self.mask))


def test_arrays_keep_their_dtypes(tmp_path):
    """And a mask of infinities is not taken for a failure of training."""
    trainer = build(Mixed(nnx.Rngs(0)), loss="mse", optimizer=optax.adam(0.1))
    losses = trainer.fit(XS, YS, epochs=2, batch_size=4, progress=False)
    assert losses.dtype == "float32" and trainer.dtype == "float32"
    state = trainer.state()
    assert state.params["first.weight"].dtype == "bfloat16"
    assert state.params["second.weight"].dtype == "float32"
    assert state.buffers["calls"] == 4
    assert trainer.native.first.kernel.dtype == "bfloat16"
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    again = build(Mixed(nnx.Rngs(1)), loss="mse", optimizer=optax.adam(0.1))
    assert again.load(path).step(XS, YS) == trainer.step(XS, YS)


@each_library
def test_float64_casts_every_floating_array(library):
    trainer = trainer_of("Stateful", library, dtype="float64")
    trainer.step(XS.astype("float64"), YS.astype("float64"))
    state = trainer.state()
    arrays = {**state.params, **state.buffers, **state.opt}
    floats = {x.dtype for x in arrays.values() if x.dtype.kind == "f"}
    assert floats == {np.dtype("float64")}
    # A wider model takes narrower inputs.
    assert trainer.predict(XS).dtype == "float64"


# --- what training may meet -------------------------------------------------


@each_library
def test_a_loss_that_is_not_finite_names_its_step(library):
    trainer = trainer_of("Mlp", library)
    xs = np.array(XS)
    xs[5] = np.inf
    with pytest.raises(NonFiniteLossError, match=r"^step \d+: got a loss of"):
        trainer.fit(xs, YS, epochs=1, batch_size=2, progress=False)
    assert all(np.isfinite(x).all() for x in trainer.state().params.values())


def test_control_c_stops_between_chunks(monkeypatch):
    from common.training import following

    class Pressed(following.DelayedInterrupt):
        def __enter__(self):
            self.pending = True
            return super().__enter__()

    monkeypatch.setattr(following, "DelayedInterrupt", Pressed)
    trainer = trainer_of("Mlp", "equinox")
    with pytest.raises(Interrupted, match="Call `fit` again") as caught:
        trainer.fit(XS, YS, epochs=99, batch_size=4, progress=False)
    assert len(caught.value.losses) == trainer.state().step > 0


@each_library
def test_masks_are_functions_of_canonical_names(library):
    def is_head(names):
        return {name: name.startswith("head.") for name in names}

    frozen = optax.chain(
        optax.adam(0.1),
        optax.masked(optax.set_to_zero(), lambda n: {
            name: not head for name, head in is_head(n).items()
        }),
    )  # fmt: skip
    trainer = trainer_of("Tokens", library, optimizer=frozen)
    before = trainer.state().params
    trainer.step(inputs_of("Tokens"), YS)
    after = trainer.state().params
    changed = {n for n, x in after.items() if (x != before[n]).any()}
    assert changed == {"head.weight", "head.bias"}


@each_library
@pytest.mark.parametrize(
    "optimizer", one_in(2, [optax.lbfgs(), optax.adafactor(0.1)])
)
def test_optimizers_that_need_more_than_a_gradient(library, optimizer):
    trainer = trainer_of("Mlp", library, optimizer=optimizer)
    first = trainer.step(XS, YS)["loss"]
    assert trainer.evaluate(XS, YS)["loss"] < first


def test_a_plain_container_is_a_model():
    """And is not confused with the containers of an optimizer's state."""
    with jax.enable_x64(False):
        model = {
            "a": eqx.nn.Linear(3, 4, key=jr.key(0)),
            "b": eqx.nn.Linear(4, 2, key=jr.key(1)),
        }

    def call(model, xs, *, training, key):
        return jax.vmap(model["b"])(jax.vmap(model["a"])(xs)), None

    def label(names):
        return {name: name[0] for name in names}

    optimizer = optax.partition(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1)}, label
    )
    trainer = build(model, call=call, loss="mse", optimizer=optimizer)
    trainer.step(XS, YS)
    assert trainer.native.keys() == model.keys()
    assert trainer.name == "dict"


def test_gradients_go_by_canonical_name(compiles):
    trainer = trainer_of("Tokens", "flax")
    _, _, gradients = trainer.pure.step_with_gradients(
        trainer.leaves, (inputs_of("Tokens"), YS)
    )
    params = trainer.state().params
    assert {k: x.shape for k, x in gradients.items()} == {
        k: x.shape for k, x in params.items()
    }
    batch = jax.tree.map(jnp.asarray, (inputs_of("Tokens"), YS))
    trainer.step(*batch)
    with compiles() as compiled:
        trainer.step(*batch)
    assert compiled == []
