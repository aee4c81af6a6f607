"""Where stock NNX layers part from the meaning, one function a row.

NNX changes its Variables in place, so most demonstrations call a layer and
then look at what it holds. `common.differences` holds the rows.
"""

import warnings

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


def batch_norm_float64() -> float:
    """Returns how far evaluation is off in a float64 model.

    With momentum 0 it should repeat the training output, but the statistics
    between the two are stored in float32. JAX warns of that cast.
    """
    with (
        jax.enable_x64(True),
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        norm = nnx.BatchNorm(
            64, momentum=0.0, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        x = jr.normal(jr.key(0), (32, 64), jnp.float64)
        trained = norm(x)
        evaluated = norm(x, use_running_average=True)
        return float(jnp.max(jnp.abs(evaluated - trained)))


def batch_norm_mean_1e3() -> float:
    """Returns the largest relative error of a variance, for mean 1e3.

    The data's standard deviation is 1. With momentum 0 the layer stores the
    variance as it computes it, `E[x^2] - E[x]^2` by default.
    """
    x = 1e3 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


def batch_norm_mean_1e4() -> float:
    """Returns the largest relative error of a variance, for mean 1e4.

    As `batch_norm_mean_1e3`. In half of the channels the variance is
    clipped to 0.
    """
    x = 1e4 + jr.normal(jr.key(0), (512, 64))
    norm = nnx.BatchNorm(64, momentum=0.0, rngs=nnx.Rngs(0))
    norm(x)
    two_pass = jnp.mean(jnp.square(x - jnp.mean(x, 0)), 0)
    return float(jnp.max(jnp.abs(norm.var[...] / two_pass - 1)))


def batch_norm_biased() -> float:
    """Returns how far the stored variance of {0, 2} is below the unbiased.

    The unbiased variance is 2, the biased one 1. With momentum 0 the last
    batch is all that is stored.
    """
    norm = nnx.BatchNorm(1, momentum=0.0, rngs=nnx.Rngs(0))
    x = jnp.array([[0.0], [2.0]])
    norm(x)
    return float(jnp.var(x, ddof=1) - norm.var[0])


def batch_norm_jax_jit() -> float:
    """Returns which share of an update of the running mean is lost.

    The module is an argument of `jax.jit`, which takes it as a pytree: the
    call works on a copy. `nnx.jit` writes the update back.
    """
    norm = nnx.BatchNorm(1, momentum=0.9, rngs=nnx.Rngs(0))
    x = jnp.ones((8, 1))
    jax.jit(lambda norm, x: norm(x))(norm, x)
    by_jax = norm.mean[0]
    nnx.jit(lambda norm, x: norm(x))(norm, x)
    by_nnx = norm.mean[0] - by_jax
    return float(1 - by_jax / by_nnx)


def linear_after_flatten() -> float:
    """Returns the relative error of a Linear behind a flatten.

    The same weight meets features in channels-first and in channels-last
    order; unrelated outputs would differ by the square root of 2.
    """
    linear = nnx.Linear(8 * 8 * 32, 64, use_bias=False, rngs=nnx.Rngs(0))
    x = jr.normal(jr.key(0), (16, 8, 8, 32))  # (B, H, W, C)
    channels_first = jnp.transpose(x, (0, 3, 1, 2))
    expected = linear(channels_first.reshape(16, -1))
    got = linear(x.reshape(16, -1))
    return float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))
