"""Equinox's `State`, a value: so an old one can be passed again."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def state_out_axes() -> float:
    """Returns how many axes the running mean gains, without an error.

    `out_axes=(0, None)` was forgotten, so each example gets its own State.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    index: Any = norm.batch_state_index
    before, _ = state.get(index)
    train = jax.vmap(norm, axis_name="batch", in_axes=(0, None))
    _, state = train(jnp.array([[-1.0], [1.0]]), state)
    after, _ = state.get(index)
    return float(after.ndim - before.ndim)


def state_out_axes_eval() -> float:
    """Returns how many axes too many an evaluation's output has.

    After a training step without `out_axes=(0, None)`, where there are as
    many examples as channels: any other number would raise.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        2, "batch", mode="batch"
    )
    x = jnp.array([[-1.0, 2.0], [1.0, -2.0]])
    train = jax.vmap(norm, axis_name="batch", in_axes=(0, None))
    _, state = train(x, state)
    evaluate = jax.vmap(
        eqx.nn.inference_mode(norm), in_axes=(0, None), out_axes=(0, None)
    )
    y, _ = evaluate(x, state)
    return float(y.ndim - x.ndim)


def state_reuse() -> float:
    """Returns how many of two batches are lost by passing a stale State.

    Through `eqx.filter_jit`. In plain Python the second use raises.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    train = eqx.filter_jit(
        jax.vmap(
            norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        )
    )
    x = jnp.array([[-1.0], [1.0]])
    _, new_state = train(x, state)
    try:
        _, new_state = train(x, state)  # meant: `train(x, new_state)`
    except ValueError:  # "Attempted to use old state."
        return 0.0
    index: Any = norm.batch_counter
    return float(2 - new_state.get(index))


def state_reuse_vmap() -> float:
    """Returns how many of two batches are lost by passing a stale State.

    Through a `jax.vmap` alone, with nothing compiled.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])
    _, new_state = train(x, state)
    try:
        _, new_state = train(x, state)  # meant: `train(x, new_state)`
    except ValueError:  # "Attempted to use old state."
        return 0.0
    index: Any = norm.batch_counter
    return float(2 - new_state.get(index))


def state_set_restored() -> float:
    """Returns 1 if a counter that was read from a file cannot be set.

    Its dtype and shape are those of the old value; only the old one was made
    from a Python number, which JAX calls weakly typed.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    index: Any = norm.batch_counter
    restored = np.asarray(state.get(index))
    try:
        state.set(index, restored)
    except ValueError:  # "Old and new values have different ... dtypes."
        return 1.0
    return 0.0
