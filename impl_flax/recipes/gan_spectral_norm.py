"""Train a generator against a critic with SpectralNorm.

The critic's state estimates the norm, and only training the critic updates it.
The layer is a custom one, because `nnx.SpectralNorm` overwrites the kernel.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from impl_flax.layers import SpectralNorm


@nnx.jit
def step(generator, critic, gen_optimizer, critic_optimizer, real, noise):
    """Trains the critic and then the generator, and returns the loss."""

    def critic_loss(critic):
        fake_scores = critic(generator(noise))
        return jnp.mean(fake_scores - critic(real))

    def generator_loss(generator):
        frozen = nnx.view(critic, use_running_average=True)
        return -jnp.mean(frozen(generator(noise)))

    loss, grads = nnx.value_and_grad(critic_loss)(critic)
    critic_optimizer.update(critic, grads)
    grads = nnx.grad(generator_loss)(generator)
    gen_optimizer.update(generator, grads)
    return loss


def linear(key1, key2):
    """Returns a Linear layer with normal weights."""
    layer = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(key1))
    # NNX creates float32 arrays. This follows JAX's default dtype.
    layer = jax.tree.map(lambda x: x.astype(float), layer)
    layer.kernel[...] = jr.normal(key2, (2, 2))
    return layer


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the losses of the critic, and its weight."""
    critic_keys, gen_keys, (norm_key, data_key) = jr.split(key, (3, 2))
    critic = SpectralNorm(linear(*critic_keys), rngs=nnx.Rngs(norm_key))
    critic_optimizer = nnx.Optimizer(critic, optax.adam(0.01), wrt=nnx.Param)
    generator = linear(*gen_keys)
    gen_optimizer = nnx.Optimizer(generator, optax.adam(0.01), wrt=nnx.Param)
    real, noise = jr.normal(data_key, (2, 16, 2))
    objects = generator, critic, gen_optimizer, critic_optimizer
    losses = [step(*objects, real + 1, noise) for _ in range(5)]
    return {"losses": jnp.array(losses), "weight": critic.layer.kernel[...]}
