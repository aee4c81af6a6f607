"""Save a run to a folder, restore it, and continue where it stopped.

Orbax writes the arrays of an `nnx.State` by name, to a folder. To read them,
it needs a State of the same structure, whose arrays may be shapes.
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx


def make(key):
    """Returns a model, an optimizer, and streams of random numbers."""
    model = nnx.BatchNorm(3, use_fast_variance=False, rngs=nnx.Rngs(0))
    # NNX creates float32 arrays. This follows JAX's default dtype.
    model = jax.tree.map(lambda x: x.astype(float), model)
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    return model, optimizer, nnx.Rngs(noise=key)


@nnx.jit
def step(model, optimizer, rngs, xs):
    """Takes a step on noisy inputs, and returns the loss."""
    noise = rngs.noise.normal(xs.shape)

    def loss_fn(model):
        return jnp.mean((model(xs + noise) - xs) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the run that is saved, and of the restored one."""
    xs = jnp.linspace(0, 1, 48).reshape(16, 3)
    objects = make(key)
    restored = nnx.eval_shape(make, key)
    losses = [step(*objects, xs) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, nnx.state(objects))
            checkpointer.wait_until_finished()
            state = checkpointer.restore(path, nnx.state(restored))
    nnx.update(restored, state)
    runs = [
        losses + [step(*run, xs) for _ in range(3)]
        for run in (objects, restored)
    ]
    return {"losses": jnp.array(runs)}
