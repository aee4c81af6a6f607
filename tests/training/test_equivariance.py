"""Which optimizers may see arrays in a library's own axis order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from common.training.optimizers import ARGUMENTS, commutes

CANONICAL = {
    "conv.bias": jax.ShapeDtypeStruct((3,), float),
    "conv.weight": jax.ShapeDtypeStruct((3, 2, 5), float),
    "head.weight": jax.ShapeDtypeStruct((4, 4), float),
}
NATIVE = {
    "conv.bias": jax.ShapeDtypeStruct((3,), float),
    "conv.weight": jax.ShapeDtypeStruct((5, 2, 3), float),
    "head.weight": jax.ShapeDtypeStruct((4, 4), float),
}
# Equinox stores the bias of a convolution with the axes of an image.
NATIVE_BIAS = {**NATIVE, "conv.bias": jax.ShapeDtypeStruct((3, 1), float)}


def per_leaf(function):
    return optax.stateless(
        lambda updates, params: jax.tree.map(function, updates)
    )


def kernels(params):
    return {name: x.ndim > 1 for name, x in params.items()}


def biases(params):
    return {name: "bias" in name for name in params}


def add_other(updates, params):
    del params
    x = updates["head.weight"]
    return {**updates, "head.weight": x + jnp.sum(updates["conv.weight"])}


def exchange(updates, params):
    del params
    return {**updates, "head.weight": jnp.ones_like(updates["head.weight"])}


EQUIVARIANT = {
    "elementwise": per_leaf(lambda x: jnp.where(x > 0, jnp.exp(x), -x)),
    "norm of an array": per_leaf(lambda x: x / jnp.linalg.norm(x.ravel())),
    "inner product": per_leaf(lambda x: x * jnp.vdot(x, x)),
    "sum of another parameter": optax.stateless(add_other),
    "a constant": optax.stateless(exchange),
    "accumulated": optax.MultiSteps(
        optax.adam(0.1), 100
    ).gradient_transformation(),
    "mask by name": optax.adamw(0.1, mask=biases),
}
NOT_EQUIVARIANT = {
    "norm of rows": per_leaf(
        lambda x: x / jnp.sum(x * x, axis=-1, keepdims=True)
    ),
    "transpose of a square": per_leaf(
        lambda x: x.T if x.shape == (4, 4) else x
    ),
    "matrix product": per_leaf(lambda x: x @ x if x.shape == (4, 4) else x),
    "product with the transpose": per_leaf(
        lambda x: x * jnp.sum(x * x.T) if x.shape == (4, 4) else x
    ),
    "cumulative sum": per_leaf(lambda x: jnp.cumsum(x, axis=0)),
    "position": per_leaf(
        lambda x: x * jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)
    ),
    "constant from a shape": per_leaf(lambda x: x / x.shape[0]),
    "constant array": per_leaf(
        lambda x: x + np.arange(16.0).reshape(4, 4) if x.shape == (4, 4) else x
    ),
    "noise": optax.add_noise(0.1, 0.5, key=0),
    # None of its first hundred updates would show it.
    "accumulated": optax.MultiSteps(
        optax.chain(optax.centralize(), optax.sgd(0.1)), 100
    ).gradient_transformation(),
    "factored state": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "scalar for each parameter": optax.novograd(0.1),
    "history": optax.scale_by_lbfgs(),
    "state of some parameters": optax.GradientTransformation(
        lambda params: {"head.weight": params["head.weight"]},
        lambda updates, state, params=None: (updates, state),
    ),
}


BY_RANK = {
    "constant from a rank": per_leaf(lambda x: x * x.ndim),
    "mask by rank": optax.adamw(0.1, mask=kernels),
}


def is_native(optimizer, native=NATIVE):
    optimizer = optax.with_extra_args_support(optimizer)
    return commutes(optimizer, CANONICAL, native, ARGUMENTS[0])


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_native_order(name):
    assert is_native(EQUIVARIANT[name])


@pytest.mark.parametrize("name", NOT_EQUIVARIANT)
def test_canonical_order(name):
    assert not is_native(NOT_EQUIVARIANT[name])


@pytest.mark.parametrize("name", BY_RANK)
def test_a_rank_matters_only_where_it_differs(name):
    assert is_native(BY_RANK[name])
    assert not is_native(BY_RANK[name], NATIVE_BIAS)


def test_nothing_compiles(compiles):
    with compiles() as names:
        is_native(EQUIVARIANT["accumulated"])
    assert not names
