"""Train on all devices, with statistics over the whole batch.

The batch is sharded, and the rest is replicated. Under `jit`, a mean over the
axis that `vmap` names is a mean over the shards of all devices.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

optim = optax.sgd(0.1)


@eqx.filter_jit
def step(model, state, opt_state, xs, ys):
    """Returns the new model, state and optimizer state, and the loss."""

    @eqx.filter_value_and_grad(has_aux=True)
    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        predictions, state = batched(xs, state)
        return jnp.mean((predictions - ys) ** 2), state

    (loss, state), grads = loss_fn(model, state)
    updates, opt_state = optim.update(grads, opt_state)
    return eqx.apply_updates(model, updates), state, opt_state, loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns losses, statistics and weights after training on all devices."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
    linear = eqx.nn.Linear(3, 1, use_bias=False, key=layer_key)
    weight = jr.normal(weight_key, (3, 1)).T
    linear = eqx.tree_at(lambda linear: linear.weight, linear, weight)
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)([norm, linear])
    carry = model, state, optim.init(eqx.filter(model, eqx.is_inexact_array))
    model, state, opt_state = eqx.filter_shard(carry, replicated)
    # Examples in ascending order, so the devices have different means.
    xs = jnp.sort(jr.normal(data_key, (16, 3)), axis=0)
    xs, ys = eqx.filter_shard((xs, xs.sum(1, keepdims=True)), sharded)
    losses = []
    for _ in range(5):
        model, state, opt_state, loss = step(model, state, opt_state, xs, ys)
        losses.append(loss)
    mean, var = state.get(model[0].batch_state_index)
    weight = model[1].weight.T
    losses = jnp.array(losses)
    return {"losses": losses, "mean": mean, "var": var, "weight": weight}
