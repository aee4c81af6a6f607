"""Equinox's `State`, which is a value, so an old one can be used again."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from common.differences import RAISES, Family

family = Family("equinox", "state")


@family.known_difference(
    name="state-out-axes",
    layer="State",
    quantity="number of axes that are added to the running mean",
    what="A `vmap` without `out_axes=(0, None)` raises no error and adds a "
    "batch axis to every array of the `State`.",
    measured=1.0,
    origin="1",
    related=("equinox #580", "equinox #586"),
    ours="The Equinox backend writes this `vmap` once, and the step of a "
    "`Trainer` raises an error if the shape of any leaf changes.",
)
def state_out_axes() -> float:
    """Returns how many axes the running mean gains without an error.

    The `vmap` lacks `out_axes=(0, None)`, so it returns one `State` per
    example.
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


@family.known_difference(
    name="state-out-axes-eval",
    layer="State",
    quantity="number of extra axes of the output at inference",
    what="Inference with a `State` from a `vmap` without `out_axes=(0, "
    "None)` adds an axis to the output if the batch has as many examples as "
    "the layer has channels. Otherwise it raises an error.",
    measured=1.0,
    origin="1",
    related=("equinox #580", "equinox #586"),
    ours="The Equinox backend writes this `vmap` once, and the step of a "
    "`Trainer` raises an error if the shape of any leaf changes.",
)
def state_out_axes_eval() -> float:
    """Returns the number of extra axes of the output at inference.

    The training step before it lacks `out_axes=(0, None)`. The batch has as
    many examples as channels, because any other number raises an error.
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


@family.known_difference(
    name="state-reuse",
    layer="State",
    quantity="number of batches that are lost, out of 2",
    what="Passing an old `State` a second time raises an error in plain "
    "Python but not under `eqx.filter_jit`, so the update of the first batch "
    "is lost.",
    measured=1.0,
    origin="1",
    upstream="equinox #1071",
    ours="A `Trainer` holds the only `State`, and each step donates the old "
    "arrays.",
)
def state_reuse() -> float:
    """Returns how many of two batches are lost if an old State is reused.

    The call runs under `eqx.filter_jit`. In plain Python the second use of
    the `State` raises an error.
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
        _, new_state = train(x, state)  # should be `train(x, new_state)`
    except ValueError:  # "Attempted to use old state."
        return 0.0
    index: Any = norm.batch_counter
    return float(2 - new_state.get(index))


@family.known_difference(
    name="state-reuse-vmap",
    layer="State",
    quantity="number of batches that are lost, out of 2",
    what="A plain `vmap` also accepts an old `State` a second time, even "
    "without compilation, because each `vmap` creates a new `State` object.",
    measured=1.0,
    origin="1",
    related=("equinox #1071",),
    ours="A `Trainer` holds the only `State`.",
)
def state_reuse_vmap() -> float:
    """Returns how many of two batches are lost if an old State is reused.

    The call runs under `jax.vmap` only, without compilation.
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
        _, new_state = train(x, state)  # should be `train(x, new_state)`
    except ValueError:  # "Attempted to use old state."
        return 0.0
    index: Any = norm.batch_counter
    return float(2 - new_state.get(index))


@family.known_difference(
    name="state-set-restored",
    layer="State",
    quantity=RAISES,
    what="`State.set` rejects a counter that was saved and restored, because "
    "the old value is weakly typed and the restored one is not. The error is "
    "`Old and new values have different structures/shapes/dtypes`.",
    measured=1.0,
    origin="1",
    upstream="equinox #885",
    ours="Loading rebuilds the `State` from its leaves and does not call "
    "`State.set`.",
)
def state_set_restored() -> float:
    """Returns 1 if a counter that was read from a file cannot be set.

    The restored value has the dtype and shape of the old one. The old value
    was made from a Python number, so JAX treats it as weakly typed.
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
