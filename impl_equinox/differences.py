"""Where stock Equinox layers part from the meaning, one function a row.

Equinox threads `State` through a `jax.vmap` over single examples, so each
demonstration writes that `vmap` out. `common.differences` holds the rows.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr


def batch_norm_ema_train() -> float:
    """Returns the mean of a training output, for a second, shifted batch.

    A batch that is normalised by its own statistics has mean 0. This one is
    normalised by running statistics, which are still those of the first.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    _, state = train(x, state)
    y, _ = train(3 * x + 5, state)
    return float(jnp.mean(y))


def batch_norm_batch_eval() -> float:
    """Returns by how much the variance at inference exceeds the data's.

    Ten training steps on data of variance 1. The running variance starts at
    one, yet inference debiases it as if it had started at zero.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    for _ in range(10):
        _, state = train(x, state)
    y, _ = norm(x[1], state, inference=True)
    return float(1 / y[0] ** 2 - norm.eps - 1)


def batch_norm_ema_untrained() -> float:
    """Returns the factor on an input at inference before any training.

    A layer that has seen no data should pass its input on, as with a running
    variance of one. Here the running variance is zero.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    y, _ = norm(jnp.ones(1), state, inference=True)
    return float(y[0])


def batch_norm_doc_unbiased() -> float:
    """Returns how far the stored variance of {0, 2} is below the unbiased.

    The documentation promises the unbiased variance, 2; the biased one is 1.
    With momentum 0 the last batch is all that is stored.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.0, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[0.0], [2.0]])
    _, state = train(x, state)
    index: Any = norm.batch_state_index
    _, running_var = state.get(index)
    return float(jnp.var(x, ddof=1) - running_var[0])


def batch_norm_gradient() -> float:
    """Returns the gradient of the running mean by a shift of the batch.

    `nnx.BatchNorm` stops the gradient there, which makes this number 0.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.9, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    index: Any = norm.batch_state_index

    def running_mean(shift):
        _, new_state = train(jnp.array([[-1.0], [1.0]]) + shift, state)
        mean, _ = new_state.get(index)
        return mean[0]

    return float(jax.grad(running_mean)(0.0))


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


def state_reuse() -> float:
    """Returns how many of two batches are lost by passing a stale State.

    Outside `eqx.filter_jit` and `jax.vmap` the second use raises.
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


def dropout_keys() -> float:
    """Returns the share of elements that one key drops differently.

    Once for the whole batch, and once as Equinox's examples do: with a key
    split over the examples.
    """
    dropout = eqx.nn.Dropout(0.5)
    key = jr.key(0)
    x = jnp.ones((64, 64))
    batch_mask = dropout(x, key=key) == 0
    per_example = jax.vmap(lambda x, key: dropout(x, key=key))
    example_masks = per_example(x, jr.split(key, 64)) == 0
    return float(jnp.mean(batch_mask != example_masks))
