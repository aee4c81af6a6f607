"""Fine-tune the head of a model, and keep the rest as it is.

`eqx.partition` divides the model by a pytree of bools.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


class Net(eqx.Module):
    """A trained encoder, and a head for a new task."""

    encoder: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        key1, key2 = jr.split(key)
        self.encoder = eqx.nn.Linear(3, 8, use_bias=False, key=key1)
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.head = eqx.nn.Linear(8, 1, use_bias=False, key=key2)

    def __call__(self, x, state):
        x, state = self.norm(self.encoder(x), state)
        return self.head(jax.nn.relu(x)), state


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the weights after five steps."""
    key1, key2, key3, data_key = jr.split(key, 4)
    model, state = eqx.nn.make_with_state(Net)(key1)
    w1, w2 = jr.normal(key2, (3, 8)), jr.normal(key3, (8, 1))
    model = eqx.tree_at(lambda m: m.encoder.weight, model, w1.T)
    model = eqx.tree_at(lambda m: m.head.weight, model, w2.T)
    model = eqx.nn.inference_mode(model)  # freezes the statistics
    is_trained = jax.tree.map(lambda _: False, model)
    is_trained = eqx.tree_at(lambda m: m.head.weight, is_trained, True)
    trained, frozen = eqx.partition(model, is_trained)
    xs = jr.normal(data_key, (16, 3))
    optim = optax.adam(0.1)

    @eqx.filter_jit
    def train_step(trained, frozen, state, opt_state, xs):
        @eqx.filter_grad
        def loss_fn(trained):
            model = eqx.combine(trained, frozen)
            predictions, _ = jax.vmap(model, (0, None), (0, None))(xs, state)
            return jnp.mean((predictions - jnp.sin(xs[:, :1])) ** 2)

        grads = loss_fn(trained)
        updates, opt_state = optim.update(grads, opt_state)
        return eqx.apply_updates(trained, updates), opt_state

    opt_state = optim.init(trained)
    for _ in range(5):
        trained, opt_state = train_step(trained, frozen, state, opt_state, xs)
    return {"encoder": frozen.encoder.weight.T, "head": trained.head.weight.T}
