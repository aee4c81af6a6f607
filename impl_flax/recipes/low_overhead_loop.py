"""Train in a loop that spends little time outside the compiled program.

A loop over the flat list of arrays rebuilds the objects only in the trace.
`nnx.cached_partial` traverses the objects before the loop instead.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


def update(model, optimizer, xs, ys):
    """Updates the model and the optimizer, and returns the loss."""

    def loss_fn(model):
        return jnp.mean((model(xs) - ys) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def flat_loop(objects, batches):
    """Trains with `jax.jit` and the flat list of arrays of `objects`."""
    graphdef, state = nnx.split(objects)
    leaves, treedef = jax.tree.flatten(state)

    @jax.jit
    def step(leaves, batch):
        objects = nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))
        loss = update(*objects, *batch)
        return jax.tree.leaves(nnx.state(objects)), loss

    losses = []
    for batch in batches:
        leaves, loss = step(leaves, batch)
        losses.append(loss)
    nnx.update(objects, jax.tree.unflatten(treedef, leaves))
    return losses


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Trains one BatchNorm in the flat loop, and with `cached_partial`."""
    model = nnx.BatchNorm(3, use_fast_variance=False, rngs=nnx.Rngs(0))
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    objects = model, nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    copies = nnx.clone(objects)
    xs = jr.normal(key, (16, 3))
    batches = [(xs, jnp.sin(xs))] * 5
    flat = flat_loop(objects, batches)
    step = nnx.cached_partial(nnx.jit(update), *copies)
    cached = [step(*batch) for batch in batches]
    return {"losses": jnp.array([flat, cached]), "weight": model.scale[...]}
