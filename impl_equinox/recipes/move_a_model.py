"""Move a trained model here from Flax NNX with `port`, and prove it equal."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from common import assert_equivalent, port


class Net(eqx.Module):
    """A network for one example."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 8, use_bias=False, key=key)
        self.norm = eqx.nn.BatchNorm(8, "batch", momentum=0.9, mode="batch")

    def __call__(self, x, state):
        return self.norm(self.linear(x), state)


def receive(key, source, xs):
    """Returns a model and its state, filled from an NNX module."""
    target = port(source, eqx.nn.make_with_state(Net)(key))
    assert_equivalent(source, target, xs, steps=2)
    return target


def train(key, xs):
    """Returns a model and its state after three steps of SGD."""
    layer_key, weight_key = jr.split(key)
    model, state = eqx.nn.make_with_state(Net)(layer_key)
    weight = jr.normal(weight_key, (3, 8)).T
    model = eqx.tree_at(lambda m: m.linear.weight, model, weight)
    # Saturated: inference uses the running statistics as they are.
    state = state.set(model.norm.batch_counter, jnp.array(2**30))

    @eqx.filter_jit
    @eqx.filter_grad(has_aux=True)
    def loss_fn(model, state):
        batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        ys, state = batched(xs, state)
        return jnp.mean((ys - jnp.sin(xs[:, :1])) ** 2), state

    for _ in range(3):
        grads, state = loss_fn(model, state)
        model = eqx.apply_updates(model, jax.tree.map(jnp.negative, grads))
    return model, state


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weight and running mean of a trained model."""
    train_key, data_key = jr.split(key)
    model, state = train(train_key, jr.normal(data_key, (16, 3)))
    mean, _ = state.get(model.norm.batch_state_index)
    return {"weight": model.linear.weight.T, "mean": mean}
