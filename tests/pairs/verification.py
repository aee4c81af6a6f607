"""Shows that two models are the same function under a mapping."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.agreement import relative_error, relative_errors
from common.layouts import Layout, Role
from common.native import NativeModel

Arrays = dict[str, Any]


def is_float(x: Any) -> bool:
    """Tells arrays of floats from others."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def random_arrays(model: NativeModel, seed: int = 0) -> Arrays:
    """Returns the arrays of a model in float64, with random values.

    Running variances stay positive, flags such as that of a first call are
    off, and all values are of a size at which no function saturates.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for name, x in model.arrays().items():
        is_buffer = model.infos[name].role is Role.BUFFER
        if is_buffer and x.dtype == bool:
            x = jnp.zeros_like(x)
        if is_float(x):
            size = max(int(np.prod(x.shape[1:])), 1) ** -0.5
            drawn = size * rng.normal(size=x.shape)
            x = jnp.asarray(np.abs(drawn) + 0.5 if is_buffer else drawn)
        made[name] = x
    return made


def floats_of(arrays: Mapping[str, Any]) -> Arrays:
    """Returns the arrays of floats, in float64."""
    return {
        name: jnp.asarray(x, jnp.float64)
        for name, x in arrays.items()
        if is_float(x)
    }


def carry(layouts: Mapping[str, Layout], arrays: Mapping[str, Any]) -> Arrays:
    """Makes the arrays of the right model."""
    return {name: layout.apply(arrays) for name, layout in layouts.items()}


def cast(xs: Any) -> Any:
    """Returns inputs with all floats in float64."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64) if is_float(x) else x, xs
    )


def errors(
    models: tuple[NativeModel, NativeModel],
    layouts: Mapping[str, Layout],
    batches: tuple[Any, Any],
    *,
    training: bool = False,
    constants: tuple[str, ...] = (),
    seed: int = 0,
) -> dict[str, float]:
    """Returns the errors of outputs, gradients and updated buffers.

    The gradients are those of a random projection of the outputs by the
    arrays of the left model, on the right through the mapping.

    Args:
        models: the left and the right model.
        layouts: of the right model's arrays, by dotted name.
        batches: the batch of each model.
        training: whether the models are called in training mode.
        constants: arrays of the left model that keep their values.
        seed: of the random weights and of the projection.
    """
    left, right = models
    arrays = random_arrays(left, seed)
    own = left.arrays()
    arrays |= {name: own[name] for name in constants}
    floats = {
        name: x
        for name, x in floats_of(arrays).items()
        if name not in constants
    }

    def left_run(floats):
        return left.apply(arrays | floats, batches[0], training=training)

    kept = floats_of(right.arrays())

    def right_run(floats):
        made = carry(layouts, arrays | floats)
        return right.apply(kept | made, batches[1], training=training)

    left_out, left_new, left_grads = _run(left_run, floats, seed)
    right_out, right_new, right_grads = _run(right_run, floats, seed)
    found = {
        f"output {i}": relative_error(a, b)
        for i, (a, b) in enumerate(zip(left_out, right_out, strict=True))
    }
    scales = {name: _largest(left_grads) for name in left_grads}
    gradients = relative_errors(left_grads, right_grads, scales)
    found |= {f"gradient {name}": x for name, x in gradients.items()}
    if training:
        expected = carry(layouts, arrays | floats_of(left_new))
        updated = floats_of(right_new)
        for name, x in floats_of(expected).items():
            found[f"updated {name}"] = relative_error(x, updated[name])
    return found


def _largest(arrays: Mapping[str, Any]) -> float:
    return max(float(np.max(np.abs(x), initial=0.0)) for x in arrays.values())


def _run(run: Any, floats: Arrays, seed: int) -> Any:
    """Returns the outputs, the arrays afterwards, and the gradients."""

    def loss(floats):
        outputs, new = run(floats)
        leaves = jax.tree.leaves(outputs)
        rng = np.random.default_rng(seed)
        total = sum(jnp.vdot(rng.normal(size=x.shape), x) for x in leaves)
        return total, (leaves, new)

    (_, (leaves, new)), grads = jax.jit(
        jax.value_and_grad(loss, has_aux=True)
    )(floats)
    return leaves, new, grads
