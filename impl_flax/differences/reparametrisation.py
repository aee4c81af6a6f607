"""Stock NNX SpectralNorm and WeightNorm, which overwrite the Params."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from impl_flax import layers


def spectral_norm_eval() -> float:
    """Returns how far an evaluation moves an entry of the kernel 2 I.

    Its largest singular value is 2; what is left in the Param is I.
    """
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    linear.kernel.set_value(2 * jnp.eye(4))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(0))
    layer.eval()
    layer(jnp.ones((1, 4)))
    return float(jnp.max(jnp.abs(linear.kernel[...] - 2 * jnp.eye(4))))


def spectral_norm_training() -> float:
    """Returns by which share the loss is lower after 20 SGD steps.

    Lower than by the paper's rule, which adds the update to the weight that
    was not divided. Start, data, first loss and first gradient are the same.
    """
    x = jr.normal(jr.key(0), (64, 4))
    y = jnp.flip(x, 1)

    @nnx.jit
    def step(layer, optimizer):
        def compute_loss(layer):
            return jnp.mean(jnp.square(layer(x) - y))

        loss, grads = nnx.value_and_grad(compute_loss)(layer)
        optimizer.update(layer, grads)
        return loss

    def train(wrapper, **options):
        linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        linear.kernel.set_value(jnp.diag(jnp.array([3.0, 1.0, 1.0, 1.0])))
        layer = wrapper(linear, rngs=nnx.Rngs(0), **options)
        optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)
        return [step(layer, optimizer) for _ in range(20)]

    stock = train(nnx.SpectralNorm, n_steps=15)
    paper = train(layers.SpectralNorm)  # our own layer
    return float(1 - stock[-1] / paper[-1])


def spectral_norm_start() -> float:
    """Returns the largest singular value of a kernel after the first call.

    By then it should be divided by it. One step of power iteration from a
    random vector does not find it.
    """
    linear = nnx.Linear(64, 128, rngs=nnx.Rngs(0))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(1))
    layer(jnp.ones((1, 64)))
    return float(jnp.linalg.norm(linear.kernel[...], 2))


def spectral_norm_bias() -> float:
    """Returns an entry of a bias after a call; it was 2.

    The bias of a LinearGeneral with two output axes is a matrix.
    """
    linear = nnx.LinearGeneral(2, (2, 2), rngs=nnx.Rngs(0))
    bias: Any = linear.bias
    bias.set_value(2 * jnp.eye(2))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(1))
    layer(jnp.ones((1, 2)))
    return float(bias[0, 0])


def weight_norm_eval() -> float:
    """Returns how far an evaluation moves an entry of the kernel 2 I."""
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    linear.kernel.set_value(2 * jnp.eye(4))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    layer.eval()
    layer(jnp.ones((1, 4)))
    return float(jnp.max(jnp.abs(linear.kernel[...] - 2 * jnp.eye(4))))


def weight_norm_untrained() -> float:
    """Returns how many arrays of a wrapped Linear are trained.

    There are three: the direction, the scale and the bias.
    """
    linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    return float(len(jax.tree.leaves(nnx.state(layer, nnx.Param))))


def weight_norm_start() -> float:
    """Returns the factor by which wrapping a layer changes its output.

    The paper's scale starts at the norm of the weight, here 5.
    """
    linear = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    linear.kernel.set_value(jnp.array([[3.0], [4.0]]))
    before = linear(jnp.ones((1, 2)))
    after = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))(jnp.ones((1, 2)))
    return float(after[0, 0] / before[0, 0])


def weight_norm_scale_init() -> float:
    """Returns 1 if the scale cannot have a random initialiser."""
    linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    init = nnx.initializers.normal()
    try:
        nnx.WeightNorm(linear, scale_init=init, rngs=nnx.Rngs(0))
    except TypeError:  # "unexpected PRNG key type ... RngStream"
        return 1.0
    return 0.0


def weight_norm_small() -> float:
    """Returns the norm of a normalised column; it was 1e-6."""
    linear = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    linear.kernel.set_value(jnp.array([[1e-6]]))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    return float(layer(jnp.ones((1, 1)))[0, 0])
