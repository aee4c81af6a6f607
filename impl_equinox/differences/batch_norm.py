"""Stock Equinox BatchNorm, whose mode is `"ema"` unless told otherwise."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


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


def batch_norm_ema_shift() -> float:
    """Returns how much a training output moves with a shift of its batch.

    A batch that is normalised by its own statistics does not move at all.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[-1.0], [1.0]])  # mean 0, variance 1
    _, state = train(x, state)

    def mean(shift):
        y, _ = train(x + shift, state)
        return jnp.mean(y)

    return float(jax.grad(mean)(0.0))


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


def batch_norm_bfloat16() -> float:
    """Returns the error of the mean of a bfloat16 batch, of a float32 layer.

    The mean of 1 and 1 + 2^-7 needs one bit more than a bfloat16 has. With
    momentum 0 the layer stores the mean as it computes it.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.0, mode="batch"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    x = jnp.array([[1.0], [1 + 2**-7]], jnp.bfloat16)
    _, state = train(x, state)
    index: Any = norm.batch_state_index
    mean, _ = state.get(index)
    return float(1 + 2**-8 - mean[0])


def batch_norm_bfloat16_ema() -> float:
    """Returns 1 if a float32 layer cannot train on a bfloat16 batch."""
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="ema"
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    try:
        train(jnp.array([[-1.0], [1.0]], jnp.bfloat16), state)
    except TypeError:  # "lax.select requires ... the same dtypes"
        return 1.0
    return 0.0


def batch_norm_bfloat16_stuck() -> float:
    """Returns the share of an update of the running variance that is lost.

    The variance is 1, the batch's 1.125^2. A hundredth of the difference is
    less than half of the last bit of 1, so no further step does more.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", momentum=0.99, mode="batch", dtype=jnp.bfloat16
    )
    train = jax.vmap(
        norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    _, state = train(jnp.array([[-1.125], [1.125]], jnp.bfloat16), state)
    index: Any = norm.batch_state_index
    _, var = state.get(index)
    return float(1 - (var[0] - 1) / (0.01 * (1.125**2 - 1)))


def batch_norm_axis_name() -> float:
    """Returns 1 if the layer cannot be an argument of `jax.jit`.

    The name of its axis is a leaf of the pytree, and no array. The same
    holds for `jax.device_put`; `eqx.filter_jit` sets the name aside.
    """
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        1, "batch", mode="batch"
    )
    evaluate = jax.jit(lambda norm, x: norm(x, state, inference=True)[0])
    try:
        evaluate(norm, jnp.ones(1))
    except TypeError:  # "The problematic value is of type <class 'str'>"
        return 1.0
    return 0.0
