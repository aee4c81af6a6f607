"""Divide the parameters and the optimizer's arrays over all devices.

Each device keeps a part of every large array (FSDP). The Variables are
annotated with the part, and so are the optimizer's, which follow them.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

init = nnx.with_partitioning(nnx.initializers.ones, (None, "data"))


@nnx.jit
def step(model, optimizer, xs, ys):
    """Updates the model and the optimizer, and returns the loss."""

    def loss_fn(model):
        return jnp.mean((model(xs) - ys) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    state = nnx.state((model, optimizer))
    specs = nnx.get_partition_spec(state)
    state = jax.lax.with_sharding_constraint(state, specs)
    nnx.update((model, optimizer), state)
    return loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns losses and weights after training on all devices."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):  # the annotations name the axes of this mesh
        rngs = nnx.Rngs(layer_key)
        model = nnx.Linear(3, 16, use_bias=False, kernel_init=init, rngs=rngs)
        # NNX creates float32 arrays. This follows JAX's default dtype.
        model = jax.tree.map(lambda x: x.astype(float), model)
        weight = jr.normal(weight_key, (3, 16))
        model.kernel[...] = jax.device_put(weight, model.kernel.sharding)
        optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
        xs = jr.normal(data_key, (16, 3))
        xs, ys = jax.device_put((xs, xs.sum(1, keepdims=True)), rows)
        losses = [step(model, optimizer, xs, ys) for _ in range(5)]
    weight = model.kernel[...]
    return {"losses": jnp.array(losses), "weight": weight}
