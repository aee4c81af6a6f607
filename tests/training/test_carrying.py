"""`Trainer.load(state, rules=...)`: a run of a model with other names."""

import dataclasses
import re

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
from common.layouts import Layout, Slice, Transpose
from common.native import NativeModel
from common.training.carrying import between, carry
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
    for _ in range(steps):
        a, b = left.step(X64, Y64), right.step(X64, Y64)
    assert_close(
        {"loss": a["loss"]}, {"loss": b["loss"]},
        dtype="float64", quantity="trajectory", what="loss", steps=steps,
    )  # fmt: skip


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.1),
        optax.adamw(0.1, mask=lambda names: {
            n: n.endswith("weight") for n in names
        }),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9)),
    ],
    ids=["adam", "mask", "chain"],
)  # fmt: skip
def test_a_run_continues_in_a_model_with_other_names(optimizer, tmp_path):
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
    back = {theirs: mine for mine, theirs in MLP_RULES.items()}
    again = mlp("equinox", optimizer=optimizer)
    again.load(right.state(), rules=back)
    check_run(right, again)


def test_a_function_of_states_is_a_rule():
    left = mlp("equinox")
    left.step(X64, Y64)

    def rename(state):
        names = {theirs: mine for mine, theirs in MLP_RULES.items()}

        def renamed(arrays):
            for old, new in names.items():
                arrays = {k.replace(old, new): x for k, x in arrays.items()}
            return arrays

        return dataclasses.replace(
            state, params=renamed(state.params), opt=renamed(state.opt)
        )

    check_run(left, mlp("flax").load(left.state(), rules=rename))


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


SPLIT = {
    "one.weight": Layout.of(
        "matrix", (3, 4), Slice(1, 0, 2), Transpose((1, 0))
    ),
    "two.weight": Layout.of(
        "matrix", (3, 4), Slice(1, 2, 4), Transpose((1, 0))
    ),
}


def test_moments_are_rearranged_with_their_parameters():
    left = trainer_of(Fused(jr.key(0)))
    left.step(X64, Y64)
    right = trainer_of(Split(nnx.Rngs(0))).load(left.state(), rules=SPLIT)
    mu = left.state().opt["optimizer.0.mu.matrix"]
    moment = right.state().opt["optimizer.0.mu.two.weight"]
    np.testing.assert_array_equal(moment, mu[:, 2:].T)
    check_run(left, right)


def test_a_plan_over_dotted_names_becomes_rules():
    """A plan knows the native arrays; a State has canonical ones."""
    source = NativeModel(Fused(jr.key(0)))
    target = NativeModel(Split(nnx.Rngs(0)))
    plan = {
        "one.kernel": Layout.of("matrix", (3, 4), Slice(1, 0, 2)),
        "two.kernel": Layout.of("matrix", (3, 4), Slice(1, 2, 4)),
    }
    assert between(plan, source, target) == SPLIT
    tied = {"one.kernel": plan["one.kernel"]}
    assert between(tied, source, target).keys() == {"one.weight"}


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
    r"parameter, which the rules rearrange, expected an array for each "
    r"element\. Continue with a new optimizer, or use one such as "
    r"`optax\.adam`\.$"
)


def test_an_optimizer_state_of_another_shape_is_renamed():
    optimizer = optax.adafactor(0.1, min_dim_size_to_factor=2)
    left = mlp("equinox", optimizer=optimizer)
    left.step(X64, Y64)
    right = mlp("flax", optimizer=optimizer)
    check_run(left, right.load(left.state(), rules=MLP_RULES))


# --- rules that do not fit --------------------------------------------------


def without(name):
    return {k: x for k, x in MLP_RULES.items() if k != name}


ERRORS = {
    "missing": (
        without("hidden.bias"),
        r"rules: got no counterpart for ['hidden.bias'] of the model that "
        r"loads, and left ['layers.0.bias'] of the saved one, expected a "
        r"counterpart for every array. Add a rule from the first name to the "
        r"second.",
    ),
    "unknown_target": (
        {**MLP_RULES, "hidden.scale": "layers.0.bias"},
        r"rules: got no counterpart for ['hidden.scale'] of the model that "
        r"loads, and left [] of the saved one, expected a counterpart for "
        r"every array. Add a rule from the first name to the second.",
    ),
    "shape": (
        {
            **MLP_RULES,
            "hidden.weight": Layout.of("layers.0.weight", (3, 4)),
        },
        r"rule for 'hidden.weight': got arrays that do not fit (layout of "
        r"'layers.0.weight': got the shape (4, 3), expected (3, 4). Pass an "
        r"array of that shape.), expected the shapes of the layout. Correct "
        r"the rule.",
    ),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_rules_that_do_not_fit(fault, assert_same):
    rules, message = ERRORS[fault]
    left, right = mlp("equinox"), mlp("flax")
    before = right.state()
    with pytest.raises(StateError, match=f"^{re.escape(message)}$"):
        right.load(left.state(), rules=rules)
    assert_same(right.state(), before)


def test_a_wrong_rule_of_another_shape_is_refused():
    rules = {
        **MLP_RULES,
        "hidden.bias": "layers.2.bias",
        "output.bias": "layers.0.bias",
    }
    left, right = mlp("equinox"), mlp("flax")
    with pytest.raises(StateError, match=r"got float64\[2\], expected float6"):
        right.load(left.state(), rules=rules)


def test_another_optimizer_is_refused():
    left = mlp("equinox", optimizer=optax.sgd(0.1))
    with pytest.raises(
        StateError,
        match=r"^optimizer state 'optimizer\.0\.count': got nothing, expected "
        r"an array\. Load a State of the same optimizer\.$",
    ):
        carry(left.state(), MLP_RULES, mlp("flax").state())
