"""Divide the parameters and the optimizer's arrays over all devices.

Each device keeps a part of each array (FSDP); a tree of shardings says which.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

optim = optax.adam(0.1)


def shardings(tree, mesh):
    """Divides the first axis of each array that the devices divide."""

    def divide(x):
        divides = x.ndim and x.shape[0] % mesh.size == 0
        spec = PartitionSpec("data") if divides else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map(divide, eqx.filter(tree, eqx.is_array))


@eqx.filter_jit
def step(carry, layout, xs, ys):
    """Returns the new model and optimizer state, and the loss."""
    model, opt_state = carry

    @eqx.filter_value_and_grad
    def loss_fn(model):
        return jnp.mean((jax.vmap(model)(xs) - ys) ** 2)

    loss, grads = loss_fn(model)
    updates, opt_state = optim.update(grads, opt_state)
    carry = eqx.apply_updates(model, updates), opt_state
    return eqx.filter_shard(carry, layout), loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns losses and weights after training on all devices."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    linear = eqx.nn.Linear(3, 16, use_bias=False, key=layer_key)
    weight = jr.normal(weight_key, (3, 16)).T
    model = eqx.tree_at(lambda linear: linear.weight, linear, weight)
    carry = model, optim.init(eqx.filter(model, eqx.is_inexact_array))
    layout = shardings(carry, mesh)
    carry = eqx.filter_shard(carry, layout)
    xs = jr.normal(data_key, (16, 3))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    xs, ys = eqx.filter_shard((xs, xs.sum(1, keepdims=True)), rows)
    losses = []
    for _ in range(5):
        carry, loss = step(carry, layout, xs, ys)
        losses.append(loss)
    weight = carry[0].weight.T
    return {"losses": jnp.array(losses), "weight": weight}
