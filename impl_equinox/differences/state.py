"""Equinox's `State`, which is a value, so an old one can be used again."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from common.differences import RAISES, Family
from common.layers.table import BatchNorm
from common.registry import find_counterpart

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
    quantity="number of lost batches out of 2",
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
    quantity="number of lost batches out of 2",
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


@family.known_difference(
    name="filter-jit-nnx-module",
    layer="eqx.filter_jit of an nnx.BatchNorm",
    quantity="fraction of an update of the running mean that is lost",
    what="An NNX module is a pytree, so `eqx.filter_jit` takes it as an "
    "argument. What the function writes to the module's Variables, such as "
    "the running statistics of a batch norm, is lost without an error.",
    measured=1.0,
    origin="1",
    ours="`as_equinox` puts these Variables into an `eqx.nn.State`, which a "
    "call returns.",
)
def filter_jit_nnx_module() -> float:
    """Returns the fraction of an update of the running mean that is lost.

    `eqx.filter_jit` takes the module apart and calls the function with a copy
    of it. Without it the module is updated in place.
    """
    batch_norm = find_counterpart("flax", BatchNorm(features=1))
    module = batch_norm.write(
        {"weight": jnp.ones(1), "bias": jnp.zeros(1)},
        {"running_mean": jnp.zeros(1), "running_var": jnp.ones(1)},
    )
    x = jnp.ones((8, 1))

    def mean_after(call) -> float:
        call(module, x)
        _, buffers = batch_norm.read(module)
        return float(buffers["running_mean"][0])

    by_jit = mean_after(eqx.filter_jit(lambda module, x: module(x)))
    in_place = mean_after(lambda module, x: module(x)) - by_jit
    return 1 - by_jit / in_place
