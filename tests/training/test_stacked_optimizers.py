"""Which optimizers see a stack of layers as one parameter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from common.agreement import tolerance
from common.layouts import Stacked
from common.models.deep_mlp import DeepMLP
from common.training import optimizers
from common.training.optimizers import (
    ARGUMENTS,
    operands_of,
    with_arguments,
)
from common.training.stacked_optimizers import (
    first_layers,
    is_same_in_layers,
    under_vmap,
)
from tests.conftest import exhaustive_but

STACKS = {
    "blocks.0.weight": Stacked("blocks.*0.weight", "w", (3, 2, 2)),
    "blocks.0.bias": Stacked("blocks.*0.bias", "b", (3, 2)),
}
NAMES = {
    name: jax.ShapeDtypeStruct(stack.shape[1:], float)
    for stack in STACKS.values()
    for name in stack.names
} | {"head.weight": jax.ShapeDtypeStruct((2, 2), float)}


def weights(params):
    return {name: x.ndim > 1 for name, x in params.items()}


def of_one_layer(params):
    return {name: "blocks.1." in name for name in params}


def of_first_layer(params):
    return {name: "blocks.0." in name for name in params}


def labels(params):
    return {n: "a" if n.endswith("bias") else "b" for n in params}


def of_parameters(function):
    return optax.stateless(function)


def add_to_head(updates, params):
    del params
    total = sum(jnp.sum(x) for x in updates.values())
    return {**updates, "head.weight": updates["head.weight"] + total}


def by_count(updates, params):
    del params
    return {name: x / len(updates) for name, x in updates.items()}


SAME = {
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, mask=weights),
    "norm of each array": optax.lamb(0.1),
    "labels": optax.partition(
        {"a": optax.sgd(0.1, momentum=0.9), "b": optax.adam(0.1)}, labels
    ),
    "schedule": optax.sgd(optax.linear_schedule(0.1, 0, 5)),
    "factors of each array": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "clipped": optax.chain(optax.clip(1.0), optax.sgd(0.1)),
}
NOT_SAME = {
    "a mask of one layer": optax.adamw(0.1, mask=of_one_layer),
    "a mask of the first layer": optax.adamw(0.1, mask=of_first_layer),
    "norm of all arrays": optax.chain(
        optax.clip_by_global_norm(1.0), optax.sgd(0.1)
    ),
    "noise of each array": optax.chain(
        optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1)
    ),
    "sum over the stack": of_parameters(add_to_head),
    "number of arrays": of_parameters(by_count),
}


def is_same(optimizer):
    optimizer = optax.with_extra_args_support(optimizer)
    update = with_arguments(optimizer, ARGUMENTS[0])
    whole = operands_of(optimizer, NAMES)
    first = operands_of(optimizer, first_layers(NAMES, STACKS))
    return is_same_in_layers(update, whole, first, NAMES, STACKS)


@pytest.mark.parametrize("name", SAME)
def test_layers_are_treated_alike(name):
    assert is_same(SAME[name])


@pytest.mark.parametrize("name", NOT_SAME)
def test_layers_are_not_treated_alike(name):
    assert not is_same(NOT_SAME[name])


def test_stacks_of_stacks_are_mapped_from_outside():
    stack = Stacked("groups.*0.layers.*0.weight", "w", (2, 3, 4))
    stacks = {stack.names[0]: stack}
    found = []

    def normalize(tree):
        found.append(tree[stack.names[0]].shape)
        return {name: x / jnp.sum(x) for name, x in tree.items()}

    x = np.ones((2, 3, 4))
    y = under_vmap(normalize, stacks)({stack.names[0]: x})
    assert set(found) == {(4,)}
    assert np.array_equal(y[stack.names[0]], x / 4)


# --- in a trainer -----------------------------------------------------------

SIZES: dict[str, Any] = {"depth": 3, "size": 3}
TRAINED = {
    "adam": optax.adam(0.1),
    "a mask of one layer": NOT_SAME["a mask of one layer"],
    "norm of all arrays": NOT_SAME["norm of all arrays"],
    "norm of each array": SAME["norm of each array"],
    "factors of each array": SAME["factors of each array"],
}


def errors(trainer, plain, batch):
    """Trains both, and returns the error of each array of the State."""
    for _ in range(2):
        trainer.step(*batch)
        plain.step(*batch)
    got, want = trainer.state().flat(), plain.state().flat()
    assert {k: x.shape for k, x in got.items()} == {
        k: x.shape for k, x in want.items()
    }
    return {k: np.max(np.abs(got[k] * 1.0 - x)) for k, x in want.items()}


@pytest.mark.parametrize(
    "name", exhaustive_but(TRAINED, "a mask of one layer")
)
def test_a_stack_is_trained_like_its_layers(name, make, make_batch):
    batch = make_batch(DeepMLP(**SIZES))
    options = {"optimizer": TRAINED[name], "fresh": True, **SIZES}
    trainer = make("deep_mlp", "equinox", scan=True, **options)
    plain = make("deep_mlp", "reference", **options)
    found = errors(trainer, plain, batch)
    assert max(found.values()) <= tolerance("float64", "update")


def test_a_mask_that_is_overlooked_is_found(make, make_batch, monkeypatch):
    monkeypatch.setattr(
        optimizers, "is_same_in_layers", lambda *arguments: True
    )
    batch = make_batch(DeepMLP(**SIZES))
    mask = NOT_SAME["a mask of the first layer"]
    options = {"optimizer": mask, "fresh": True, **SIZES}
    trainer = make("deep_mlp", "equinox", scan=True, **options)
    plain = make("deep_mlp", "reference", **options)
    found = errors(trainer, plain, batch)
    assert max(found.values()) > tolerance("float64", "update")
