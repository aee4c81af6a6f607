"""Train a generator against a critic with SpectralNorm.

The critic's state estimates the norm, and only training the critic updates it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

optim = optax.adam(0.01)


@eqx.filter_jit
def step(generator, critic, state, gen_opt, critic_opt, real, noise):
    """Trains the critic and then the generator, and returns the loss."""

    @eqx.filter_value_and_grad(has_aux=True)
    def critic_loss(critic, state):
        batched = jax.vmap(critic, (0, None), (0, None))
        fake_scores, state = batched(jax.vmap(generator)(noise), state)
        real_scores, state = batched(real, state)
        return jnp.mean(fake_scores - real_scores), state

    @eqx.filter_grad
    def generator_loss(generator, critic, state):
        batched = jax.vmap(critic, (0, None), (0, None))
        scores, _ = batched(jax.vmap(generator)(noise), state)
        return -jnp.mean(scores)

    (loss, state), grads = critic_loss(critic, state)
    updates, critic_opt = optim.update(grads, critic_opt)
    critic = eqx.apply_updates(critic, updates)
    grads = generator_loss(generator, eqx.nn.inference_mode(critic), state)
    updates, gen_opt = optim.update(grads, gen_opt)
    generator = eqx.apply_updates(generator, updates)
    return (generator, critic, state, gen_opt, critic_opt), loss


def linear(key1, key2):
    """Returns a Linear layer with normal weights."""
    layer = eqx.nn.Linear(2, 2, use_bias=False, key=key1)
    return eqx.tree_at(lambda m: m.weight, layer, jr.normal(key2, (2, 2)).T)


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the critic, and its weight."""
    critic_keys, gen_keys, (norm_key, data_key) = jr.split(key, (3, 2))
    make = eqx.nn.make_with_state(eqx.nn.SpectralNorm)
    critic, state = make(linear(*critic_keys), "weight", key=norm_key)
    critic_opt = optim.init(eqx.filter(critic, eqx.is_inexact_array))
    generator = linear(*gen_keys)
    gen_opt = optim.init(eqx.filter(generator, eqx.is_inexact_array))
    real, noise = jr.normal(data_key, (2, 16, 2))
    carry, losses = (generator, critic, state, gen_opt, critic_opt), []
    for _ in range(5):
        carry, loss = step(*carry, real + 1, noise)
        losses.append(loss)
    return {"losses": jnp.array(losses), "weight": carry[1].layer.weight.T}
