"""Keep a moving average of a model, and a target network.

A model and its state are pytrees of immutable arrays. The average is a
`jax.tree.map` over both, and the target network is an older pair.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


def average(old, new):
    """Returns the average of arrays; counters and flags are new."""
    return 0.9 * old + 0.1 * new if eqx.is_inexact_array(new) else new


def predict(pair, xs):
    """Returns the predictions of a pair of a model and its state."""
    model, state = eqx.nn.inference_mode(pair)
    return jax.vmap(model, (0, None), (0, None))(xs, state)[0]


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns predictions of the averaged model and of the target."""
    layer_key, weight_key, data_key = jr.split(key, 3)
    linear = eqx.nn.Linear(3, 3, use_bias=False, key=layer_key)
    norm = eqx.nn.BatchNorm(3, "batch", momentum=0.9, mode="batch")
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)([linear, norm])
    weight = jr.normal(weight_key, (3, 3)).T
    model = eqx.tree_at(lambda m: m.layers[0].weight, model, weight)
    # Saturated: inference uses the running statistics as they are.
    state = state.set(model.layers[1].batch_counter, jnp.array(2**30))
    xs = jr.normal(data_key, (16, 3))
    optim = optax.adam(0.1)
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(pair, averaged, opt_state, xs):
        @eqx.filter_grad(has_aux=True)
        def loss_fn(model, state):
            batched = jax.vmap(model, (0, None), (0, None), axis_name="batch")
            ys, state = batched(xs, state)
            return jnp.mean((ys - jnp.sin(xs)) ** 2), state

        grads, state = loss_fn(*pair)
        updates, opt_state = optim.update(grads, opt_state)
        pair = eqx.apply_updates(pair[0], updates), state
        return pair, jax.tree.map(average, averaged, pair), opt_state

    pair = averaged = target = model, state
    for step in range(6):
        pair, averaged, opt_state = train_step(pair, averaged, opt_state, xs)
        if step % 4 == 3:
            target = pair
    return {"averaged": predict(averaged, xs), "target": predict(target, xs)}
