"""Every optimizer of optax: the same steps in all backends."""

import functools
import inspect
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx

from common import State
from common.agreement import assert_close
from common.comparison.layer_judge import QUICK
from common.training import optimizers
from common.training.optax_table import OPTIMIZERS, TRANSFORMATIONS
from common.training.optimizers import NamedOptimizer
from tests.conftest import exhaustive_but, one_in

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")
LIBRARIES = ("equinox", "flax")
TABLE = OPTIMIZERS | TRANSFORMATIONS
STEPS = 5
CROSSING = 2
"""The step after which a run continues in the other library."""

# Functions without a return annotation that return no transformation.
OTHERS = {
    "optax.bias_correction",
    "optax.matrix_inverse_pth_root",
    "optax.sigmoid_binary_cross_entropy",
    "optax.update_infinity_moment",
    "optax.update_moment",
    "optax.update_moment_per_elem_norm",
    "optax.contrib.schedule_free_eval_params",
}
# Their objects have a method that returns the transformation.
CLASSES = {"optax.MultiSteps"}


def public_transformations() -> set[str]:
    """Returns the functions of optax that may return a transformation."""
    found = set()
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            kinds = types.FunctionType | functools.partial
            if name.startswith("_") or not isinstance(function, kinds):
                continue
            returned = inspect.signature(function).return_annotation
            if (
                returned is inspect.Signature.empty
                or "GradientTransformation" in str(returned)
            ):
                found.add(f"{module.__name__}.{name}")
    return found


def test_every_public_transformation_has_a_row():
    assert public_transformations() - OTHERS == TABLE.keys() - CLASSES


def test_the_enumeration_finds_a_new_function(monkeypatch):
    def grokfast(alpha):
        return optax.scale(alpha)

    monkeypatch.setattr(optax, "grokfast", grokfast, raising=False)
    assert "optax.grokfast" in public_transformations()


# --- training steps in three backends ----------------------------------------


class Run:
    """A trainer of a small model, with a step that compiles quickly."""

    def __init__(self, make, backend: str, optimizer: Any):
        self.trainer = make(
            "deep_mlp", backend, optimizer=optimizer, fresh=True
        )
        self.step = jax.jit(self.trainer.pure_step, compiler_options=QUICK)
        self.leaves = self.trainer.leaves
        self.losses: list[Any] = []

    def take(self, steps: int, make_batch) -> State:
        for _ in range(steps):
            batch = make_batch(self.trainer.spec, size=4)
            self.leaves, metrics = self.step(self.leaves, tuple(batch))
            self.losses.append(metrics["loss"])
        return self.state()

    def state(self) -> State:
        return State.from_flat(self.trainer.pure.state(self.leaves)).numpy()

    def load(self, state: State) -> None:
        self.leaves = self.trainer.pure.load(self.leaves, state.flat())


def check(actual: State, expected: State) -> None:
    assert actual.flat().keys() == expected.flat().keys()
    for name in ("params", "buffers", "opt"):
        assert_close(
            getattr(actual, name),
            getattr(expected, name),
            dtype="float64",
            quantity="update",
            what=name,
        )


@pytest.mark.parametrize(
    "name",
    exhaustive_but(
        [n for n, r in OPTIMIZERS.items() if not r.reason],
        # They have a factored state, a random key, and extra arguments.
        "optax.adafactor",
        "optax.noisy_sgd",
        "optax.contrib.momo",
    ),
)
def test_five_steps_agree_and_the_state_crosses(name, make, make_batch):
    optimizer = OPTIMIZERS[name].make()
    runs = {
        backend: Run(make, backend, optimizer)
        for backend in ("reference", *LIBRARIES)
    }
    start = runs["reference"].state()
    middle = {
        backend: run.take(CROSSING, make_batch)
        for backend, run in runs.items()
    }
    end = {
        backend: run.take(STEPS - CROSSING, make_batch)
        for backend, run in runs.items()
    }
    assert any(
        not np.array_equal(x, start.params[k])
        for k, x in end["reference"].params.items()
    )
    for library in LIBRARIES:
        check(end[library], end["reference"])
    for source, target in (LIBRARIES, LIBRARIES[::-1]):
        runs[target].load(middle[source])
        assert (
            runs[target].state().flat().keys() == middle[source].flat().keys()
        )
        continued = runs[target].take(STEPS - CROSSING, make_batch)
        check(continued, end[source])


@pytest.mark.parametrize("name", ["optax.adafactor", "optax.noisy_sgd"])
def test_the_steps_would_not_agree_in_native_order(
    name, make, make_batch, monkeypatch
):
    monkeypatch.setattr(optimizers, "commutes", lambda *arguments: True)
    optimizer = OPTIMIZERS[name].make()

    def train(backend):
        return Run(make, backend, optimizer).take(STEPS, make_batch)

    with pytest.raises((AssertionError, ValueError)):
        check(train("flax"), train("reference"))


@pytest.mark.parametrize("name", [n for n, r in TABLE.items() if r.reason])
def test_a_row_with_a_reason_cannot_be_built(name, make):
    with pytest.raises(ValueError, match=r"^optimizer( update of '.+')?: got"):
        make("deep_mlp", "flax", optimizer=TABLE[name].make())


# --- transformations on arrays alone -----------------------------------------


class Arrays:
    """Parameters of one backend, and a loss that is a function of them."""

    def __init__(self, trainer: Any):
        self.layouts = trainer.backend.optimizer.layouts
        native = trainer.native
        if trainer.backend.name == "equinox":
            self.params = eqx.filter(native.model, eqx.is_inexact_array)
        elif trainer.backend.name == "flax":
            self.params = nnx.as_pure(nnx.state(native.module, nnx.Param))
        else:
            self.params = native.params

    def loss(self, params):
        named = self.layouts.to_canonical(params)
        return sum(
            jnp.sum((i + jnp.cos(jnp.arange(x.size).reshape(x.shape))) * x**2)
            for i, (_, x) in enumerate(sorted(named.items()), 1)
        )

    def train(self, optimizer, steps):
        named = NamedOptimizer(optimizer, self.layouts, self.params)

        def step(carry):
            params, state = carry
            value, grads = jax.value_and_grad(self.loss)(params)
            updates, state = named.update(
                grads,
                state,
                params,
                value=value,
                grad=grads,
                value_fn=self.loss,
            )
            return optax.apply_updates(params, updates), state

        step = jax.jit(step, compiler_options=QUICK)
        carry = self.params, named.init(self.params)
        for _ in range(steps):
            carry = step(carry)
        params, state = carry
        return self.layouts.to_canonical(params), named.read(state)


@pytest.mark.parametrize(
    "name",
    one_in(8, [n for n, r in TRANSFORMATIONS.items() if not r.reason]),
)
def test_transformations_agree(name, make):
    optimizer = TRANSFORMATIONS[name].make()
    found = {
        backend: Arrays(make("deep_mlp", backend)).train(optimizer, steps=3)
        for backend in ("reference", *LIBRARIES)
    }
    for library in LIBRARIES:
        for actual, expected in zip(
            found[library], found["reference"], strict=True
        ):
            assert_close(actual, expected, dtype="float64", quantity="update")
