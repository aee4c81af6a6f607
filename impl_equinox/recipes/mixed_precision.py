"""Compute in bfloat16, with float32 parameters and statistics.

The model casts weights and inputs. The gradients of the weights are float32.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


def to_bfloat16(tree):
    """Returns a pytree with all arrays in bfloat16."""
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


class Net(eqx.Module):
    """A network for one example."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(
            3, 8, use_bias=False, dtype=jnp.float32, key=key
        )
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch", dtype="float32")

    def __call__(self, x, state):
        linear, x = to_bfloat16((self.linear, x))
        return self.norm(linear(x).astype(jnp.float32), state)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns statistics and weights, which are float32."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    model, state = eqx.nn.make_with_state(Net)(layer_key)
    weight = jr.normal(weight_key, (3, 8), jnp.float32).T
    model = eqx.tree_at(lambda m: m.linear.weight, model, weight)
    xs = jr.normal(data_key, (16, 3), jnp.float32)
    optim = optax.adam(0.1)
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(model, state, opt_state, xs):
        @eqx.filter_grad(has_aux=True)
        def loss_fn(model, state):
            batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
            ys, state = batched(xs, state)
            return jnp.mean((ys - jnp.sin(xs[:, :1])) ** 2), state

        grads, state = loss_fn(model, state)
        updates, opt_state = optim.update(grads, opt_state)
        return eqx.apply_updates(model, updates), state, opt_state

    for _ in range(5):
        model, state, opt_state = train_step(model, state, opt_state, xs)
    mean, _ = state.get(model.norm.batch_state_index)
    return {"mean": mean, "weight": model.linear.weight.T}
