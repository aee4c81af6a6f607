"""`Trainer.load(state, rules=...)`: a run of a model with other names."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.agreement import assert_close
from common.errors import StateError
from common.porting import plan_port
from tests.training import user_models
from tests.training.user_models import MLP_RULES, XS, YS

X64, Y64 = XS.astype("float64"), YS.astype("float64")


def trainer_of(model, **options):
    options = {"loss": "mse", "optimizer": optax.adam(0.1), **options}
    return build(model, dtype="float64", **options)


def mlp(library, **options):
    return trainer_of(user_models.make("Mlp", library), **options)


def check_run(left, right, steps=5):
    """Asserts that two trainers continue in the same way."""
    a, b = (
        [x.step(X64, Y64)["loss"] for _ in range(steps)] for x in (left, right)
    )
    assert_close(
        {"loss": np.array(a)}, {"loss": np.array(b)},
        dtype="float64", quantity="trajectory", what="loss", steps=steps,
    )  # fmt: skip


def weights(names):
    return {name: name.endswith("weight") for name in names}


OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "mask": optax.adamw(0.1, mask=weights),
    "chain": optax.chain(
        optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_continues_in_a_model_with_other_names(name, tmp_path):
    optimizer = OPTIMIZERS[name]
    left = mlp("equinox", optimizer=optimizer)
    left.fit(X64, Y64, epochs=2, batch_size=4, progress=False)
    path = tmp_path / "run.safetensors"
    left.save(path)
    right = mlp("flax", optimizer=optimizer).load(path, rules=MLP_RULES)
    assert right.place == left.place
    assert (right.run_key == left.run_key).all()
    left_losses, right_losses = (
        x.fit(X64, Y64, epochs=1, batch_size=4, progress=False)
        for x in (left, right)
    )
    assert_close(
        {"loss": left_losses}, {"loss": right_losses},
        dtype="float64", quantity="trajectory", what="losses", steps=2,
    )  # fmt: skip
    again = mlp("equinox", optimizer=optimizer)
    again.load(right.state(), rules="hidden -> layers.0\noutput -> layers.2")
    check_run(right, again)


# --- arrays that are rearranged ---------------------------------------------


class Fused(eqx.Module):
    """One matrix for two layers, stored as (in, out)."""

    matrix: jnp.ndarray

    def __init__(self, key):
        self.matrix = jr.normal(key, (3, 4))

    def __call__(self, x):
        first, second = jnp.split(x @ self.matrix, 2)
        return first * jnp.tanh(second)


class Split(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(3, 2, use_bias=False, rngs=rngs)
        self.two = nnx.Linear(3, 2, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.one(x) * jnp.tanh(self.two(x))


SPLIT = "matrix -> split(axis=1) -> {one,two}.kernel"


def test_moments_are_rearranged_with_their_parameters():
    left = trainer_of(Fused(jr.key(0)))
    left.step(X64, Y64)
    right = trainer_of(Split(nnx.Rngs(0))).load(left.state(), rules=SPLIT)
    mu = left.state().opt["optimizer.0.mu.matrix"]
    moment = right.state().opt["optimizer.0.mu.two.weight"]
    np.testing.assert_array_equal(moment, mu[:, 2:].T)
    check_run(left, right)


def test_a_plan_over_the_names_of_both_models():
    """A plan knows the native arrays; a State has canonical ones."""
    one, two = Fused(jr.key(0)), Split(nnx.Rngs(0))
    plan = plan_port(one, two, rules=SPLIT)
    right = trainer_of(two)
    right.step(X64, Y64)
    left = trainer_of(one)
    left.load(right.state(), rules=plan.inverse(), like=two)
    check_run(right, left)
    again = trainer_of(Split(nnx.Rngs(1)))
    check_run(left, again.load(left.state(), rules=plan, like=one))


class Tied(eqx.Module):
    matrix: jnp.ndarray

    def __call__(self, x):
        return jnp.tanh(x @ self.matrix) @ self.matrix.T


class Untied(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(3, 3, use_bias=False, rngs=rngs)
        self.two = nnx.Linear(3, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.two(jnp.tanh(self.one(x)))


TIED = "matrix -> copy -> one.kernel\nmatrix -> transpose -> two.kernel"


def test_arrays_that_are_tied_must_hold_the_same_values():
    left = trainer_of(Tied(jr.normal(jr.key(0), (3, 3))))
    right = trainer_of(Untied(nnx.Rngs(0))).load(left.state(), rules=TIED)
    again = trainer_of(Tied(jnp.zeros((3, 3))))
    again.load(right.state(), rules=TIED, like=right.native)
    np.testing.assert_array_equal(
        again.state().params["matrix"], left.state().params["matrix"]
    )
    right.step(X64, X64)
    with pytest.raises(ValueError, match="source 'two.kernel': got other"):
        again.load(right.state(), rules=TIED, like=right.native)


def test_the_model_of_the_run_needs_no_rules_where_its_names_are_the_same():
    left = user_models.make("Trees", "equinox")
    run = trainer_of(left)
    right = trainer_of(user_models.make("Trees", "flax", seed=1))
    right.load(run.state(), like=left)
    np.testing.assert_array_equal(
        right.state().params["linear.weight"],
        run.state().params["linear.weight"],
    )


def test_a_parameter_that_is_kept_keeps_its_moments():
    left, right = mlp("equinox"), mlp("flax")
    left.step(X64, Y64)
    right.step(X64, Y64)
    own = right.state()
    rules = "layers.0 -> hidden\nlayers.2 -> nothing\nnothing -> output"
    right.load(left.state(), rules=rules)
    state = right.state()
    for name in ("params.output.weight", "opt.optimizer.0.mu.output.weight"):
        np.testing.assert_array_equal(state.flat()[name], own.flat()[name])
    np.testing.assert_array_equal(
        state.opt["optimizer.0.mu.hidden.weight"],
        left.state().opt["optimizer.0.mu.layers.0.weight"],
    )
    assert state.step == 1


def test_a_derived_array_has_its_value():
    left, right = mlp("equinox"), mlp("flax")
    rules = (
        "layers.0 -> hidden\nlayers.2.weight -> output.weight\n"
        "layers.2.bias -> nothing\nderive(0.5) -> output.bias"
    )
    right.load(left.state(), rules=rules)
    assert (right.state().params["output.bias"] == 0.5).all()


def test_an_optimizer_state_of_another_shape_is_refused():
    optimizer = optax.adafactor(0.1, min_dim_size_to_factor=2)
    left = trainer_of(Fused(jr.key(0)), optimizer=optimizer)
    right = trainer_of(Split(nnx.Rngs(0)), optimizer=optimizer)
    before = right.state()
    with pytest.raises(StateError, match=OTHER_SHAPE):
        right.load(left.state(), rules=SPLIT)
    assert (
        right.state().params["one.weight"] == before.params["one.weight"]
    ).all()


OTHER_SHAPE = (
    r"^optimizer state '.+': got an array of another shape than its "
    r"parameter, which the rules rearrange, expected one of that shape\. "
    r"Continue with a new optimizer, or use one such as "
    r"`optax\.adam`\.$"
)


def test_an_optimizer_state_of_another_shape_is_renamed():
    optimizer = optax.adafactor(0.1, min_dim_size_to_factor=2)
    left = mlp("equinox", optimizer=optimizer)
    left.step(X64, Y64)
    right = mlp("flax", optimizer=optimizer)
    check_run(left, right.load(left.state(), rules=MLP_RULES))


# --- rules that do not fit --------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("layers.0 -> hidden", "target output.kernel"),
        ("layers.0 -> hidden\nlayers.2 -> head", "head"),
        ("layers.2 -> hidden\nlayers.0 -> output", "shape"),
    ],
)
def test_rules_that_do_not_fit(rules, message, assert_same):
    left, right = mlp("equinox"), mlp("flax")
    before = right.state()
    with pytest.raises(ValueError, match=message):
        right.load(left.state(), rules=rules)
    assert_same(right.state(), before)


def test_without_rules_the_names_must_be_equal():
    with pytest.raises(StateError, match=r"layers\.0\.bias'\]: got float64"):
        mlp("flax").load(mlp("equinox").state())


def test_another_optimizer_is_refused():
    left = mlp("equinox", optimizer=optax.sgd(0.1))
    with pytest.raises(
        StateError,
        match=r"^optimizer state 'optimizer\.0\.count': got nothing, expected "
        r"an array\. Load a State of the same optimizer\.$",
    ):
        mlp("flax").load(left.state(), rules=MLP_RULES)


def test_a_spec_needs_no_rules():
    trainer = build(backend="flax", hidden_size=2)
    with pytest.raises(
        ValueError,
        match=r"^rules: got rules for the spec 'stateful_mlp', expected none, "
        r"because its names are the same in every library\. Leave `rules` and "
        r"`like` out\.$",
    ):
        trainer.load(trainer.state(), rules=MLP_RULES)
