"""Draws the data on which layers are measured, and rounds them to a dtype."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from common.layers import Layer
from common.protocol import Arrays

TRAINING_CALLS = 3
# Running statistics stay in float32 in a narrower run, as in `nnx.BatchNorm`,
# because a moving average changes by less than bfloat16 resolves. Buffers with
# other names have the dtype of the parameters.
RUNNING_STATISTICS = ("running_mean", "running_var")


class Call(NamedTuple):
    """The arguments of one call of a layer.

    Attributes:
        inputs: a batch of each input.
        weights: the loss that is differentiated is the sum of the outputs,
            multiplied by these weights.
        key: the data of a random key.
    """

    inputs: tuple[Any, ...]
    weights: Any
    key: Any


class Case(NamedTuple):
    """The arrays of a layer, and the arguments of each call."""

    params: Arrays
    buffers: Arrays
    calls: tuple[Call, ...]


@functools.lru_cache(maxsize=16)
def draw(layer: Layer, batch_size: int, seed: int, mean: float = 0.0) -> Case:
    """Draws the data of a measurement.

    Parameters are drawn from N(0, 1), because a zero could hide an error.
    Buffers have the initial values that the row declares. The mean is added
    to the inputs that are floats. The last few cases are kept, because both
    libraries and all dtypes are measured on the same one.
    """
    rng = np.random.default_rng(seed)
    key = jr.key(seed)
    params, buffers = {}, {}
    for i, (name, variable) in enumerate(layer.variables().items()):
        if variable.trainable:
            params[name] = rng.normal(size=variable.shape)
        else:
            value = variable.init(jr.fold_in(key, i), variable.shape)
            buffers[name] = np.asarray(value)
    forward = functools.partial(layer.forward, key=key, training=True)
    calls = []
    for number in range(TRAINING_CALLS + 1):
        inputs = tuple(
            x + mean if is_float(x) else x for x in layer.draw(rng, batch_size)
        )
        # Traced once: all calls have the same shapes.
        outputs, _ = jax.eval_shape(forward, params, buffers, *inputs)
        weights = jax.tree.map(lambda y: rng.normal(size=y.shape), outputs)
        data = np.asarray(jr.key_data(jr.fold_in(key, number)))
        calls.append(Call(inputs, weights, data))
    return Case(params, buffers, tuple(calls))


def cast(tree: Any, dtype: str) -> Any:
    """Rounds every float of a tree to a dtype."""

    def one(x):
        return x.astype(jnp.dtype(dtype)) if is_float(x) else x

    return jax.tree.map(one, tree)


def cast_case(case: Case, dtype: str) -> Case:
    """Rounds every float of a case, except running statistics, to a dtype."""
    params, buffers, calls = case
    return Case(
        cast(params, dtype),
        {
            name: cast(x, buffer_dtype(name, dtype))
            for name, x in buffers.items()
        },
        cast(calls, dtype),
    )


def buffer_dtype(name: str, dtype: str) -> str:
    """Returns the dtype of a buffer in a run of some dtype."""
    narrow = dtype in ("bfloat16", "float16")
    wide = narrow and name in RUNNING_STATISTICS
    return "float32" if wide else dtype


def is_float(x: Any) -> bool:
    """Returns whether the dtype of an array is floating-point."""
    return jnp.issubdtype(x.dtype, jnp.floating)
