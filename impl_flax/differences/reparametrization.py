"""Stock NNX SpectralNorm and WeightNorm, which overwrite the parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx

from common.differences import RAISES, SEEDED, Family
from impl_flax import layers

family = Family("flax", "reparametrization")


@family.known_difference(
    name="spectral-norm-eval",
    layer="SpectralNorm",
    quantity="change of a kernel entry during inference",
    what="Every call overwrites the wrapped `nnx.Param` with the normalized "
    "kernel, even at inference.",
    measured=1.0,
    origin="2 - 2 / 2",
    upstream="flax #5576",
    ours="`impl_flax.layers.SpectralNorm` calls the wrapped layer through a "
    "copy that holds the normalized kernel.",
)
def spectral_norm_eval() -> float:
    """Returns how much inference changes an entry of the kernel 2 * I.

    The largest singular value of this kernel is 2, so the call leaves I in
    the `nnx.Param`.
    """
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    linear.kernel.set_value(2 * jnp.eye(4))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(0))
    layer.eval()
    layer(jnp.ones((1, 4)))
    return float(jnp.max(jnp.abs(linear.kernel[...] - 2 * jnp.eye(4))))


@family.known_difference(
    name="spectral-norm-training",
    layer="SpectralNorm",
    quantity="relative decrease of the loss after 20 steps compared with the "
    "paper's rule",
    what="The optimizer adds its updates to the normalized kernel. In the "
    "paper it adds them to the underlying kernel, so the stock layer takes "
    "larger steps.",
    measured=0.7422181367874146,
    band=SEEDED,
    upstream="flax #5576",
    ours="`impl_flax.layers.SpectralNorm` follows the paper's rule.",
)
def spectral_norm_training() -> float:
    """Returns by what fraction the loss is lower after 20 steps of SGD.

    The loss is compared with that of the paper's rule, which adds the update
    to the underlying weight. Both runs have the same initial weight, data,
    first loss, and first gradient.
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
    paper = train(layers.SpectralNorm)  # our custom layer
    return float(1 - stock[-1] / paper[-1])


@family.known_difference(
    name="spectral-norm-start",
    layer="SpectralNorm",
    quantity="largest singular value after the first call",
    what="The first call divides the kernel by an estimate from one power "
    "iteration on a random vector. Equinox runs 15 iterations when it creates "
    "the layer.",
    expected=1.0,
    measured=1.3240680694580078,
    band=SEEDED,
    ours="`impl_flax.layers.SpectralNorm` runs 15 iterations when it creates "
    "the layer.",
)
def spectral_norm_start() -> float:
    """Returns the largest singular value of a kernel after the first call.

    The call should divide the kernel by its largest singular value, but one
    power iteration on a random vector is too few to find that value.
    """
    linear = nnx.Linear(64, 128, rngs=nnx.Rngs(0))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(1))
    layer(jnp.ones((1, 64)))
    return float(jnp.linalg.norm(linear.kernel[...], 2))


@family.known_difference(
    name="spectral-norm-bias",
    layer="SpectralNorm",
    quantity="a bias entry that was 2 before the call",
    what="The layer normalizes every `nnx.Param` that has two or more axes, "
    "including the biases of `LinearGeneral` and of attention.",
    expected=2.0,
    measured=1.0,
    origin="2 / 2",
    related=("flax #5576",),
    ours="`impl_flax.layers.SpectralNorm` normalizes only the kernel.",
)
def spectral_norm_bias() -> float:
    """Returns an entry of a bias after a call; it was 2 before the call.

    The bias of a LinearGeneral layer with two output axes is a matrix.
    """
    linear = nnx.LinearGeneral(2, (2, 2), rngs=nnx.Rngs(0))
    bias: Any = linear.bias
    bias.set_value(2 * jnp.eye(2))
    layer = nnx.SpectralNorm(linear, rngs=nnx.Rngs(1))
    layer(jnp.ones((1, 2)))
    return float(bias[0, 0])


@family.known_difference(
    name="weight-norm-eval",
    layer="WeightNorm",
    quantity="change of a kernel entry during inference",
    what="Every call overwrites the wrapped `nnx.Param` with the normalized "
    "kernel, even at inference.",
    measured=1.0,
    origin="2 - 2 / 2",
    upstream="flax #5576",
    ours="`impl_flax.layers.WeightNorm` calls the wrapped layer through a "
    "copy that holds the normalized kernel.",
)
def weight_norm_eval() -> float:
    """Returns how much inference changes an entry of the kernel 2 * I."""
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    linear.kernel.set_value(2 * jnp.eye(4))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    layer.eval()
    layer(jnp.ones((1, 4)))
    return float(jnp.max(jnp.abs(linear.kernel[...] - 2 * jnp.eye(4))))


@family.known_difference(
    name="weight-norm-untrained",
    layer="WeightNorm",
    quantity="number of trained arrays of a wrapped Linear",
    what="The scales are not of type `nnx.Param`, so they receive no gradient "
    "and no update. The paper trains them.",
    expected=3.0,
    measured=2.0,
    origin="2",
    upstream="flax #5577",
    related=("flax #5579",),
    ours="`impl_flax.layers.WeightNorm` stores the scale in an `nnx.Param`.",
)
def weight_norm_untrained() -> float:
    """Returns the number of trained arrays of a wrapped Linear layer.

    There should be three of them, which are the direction, the scale, and
    the bias.
    """
    linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    return float(len(jax.tree.leaves(nnx.state(layer, nnx.Param))))


@family.known_difference(
    name="weight-norm-start",
    layer="WeightNorm",
    quantity="ratio of the output after wrapping to the output before it",
    what="The scale starts at 1 instead of the norm of the weight, so "
    "wrapping a trained layer changes its outputs.",
    expected=1.0,
    measured=0.2,
    origin="1 / 5, where 5 is the norm of the weight",
    related=("flax #4138",),
    ours="The scale of `impl_flax.layers.WeightNorm` starts at the norm of "
    "the weight.",
)
def weight_norm_start() -> float:
    """Returns the factor by which wrapping a layer changes its output.

    In the paper the scale starts at the norm of the weight, which is 5 here.
    """
    linear = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    linear.kernel.set_value(jnp.array([[3.0], [4.0]]))
    before = linear(jnp.ones((1, 2)))
    after = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))(jnp.ones((1, 2)))
    return float(after[0, 0] / before[0, 0])


@family.known_difference(
    name="weight-norm-scale-init",
    layer="WeightNorm",
    quantity=RAISES,
    what="A random `scale_init` raises `TypeError: unexpected PRNG key type`, "
    "because the layer passes it a stream of keys instead of a key.",
    measured=1.0,
    origin="1",
    related=("flax #5577",),
    ours="`impl_flax.layers.WeightNorm` has no such option.",
)
def weight_norm_scale_init() -> float:
    """Returns 1 if the scale cannot have a random initializer."""
    linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    init = nnx.initializers.normal()
    try:
        nnx.WeightNorm(linear, scale_init=init, rngs=nnx.Rngs(0))
    except TypeError:  # "unexpected PRNG key type ... RngStream"
        return 1.0
    return 0.0


@family.known_difference(
    name="weight-norm-small",
    layer="WeightNorm",
    quantity="norm of a normalized column",
    what="The layer adds 1e-12 to the squared norm, so a column of norm 1e-6 "
    "is normalized to a norm below 1.",
    expected=1.0,
    measured=1 / math.sqrt(2),
    origin="1e-6 / sqrt(1e-12 + 1e-12)",
    ours="`impl_flax.layers.WeightNorm` adds nothing to the norm.",
)
def weight_norm_small() -> float:
    """Returns the norm of a normalized column whose norm was 1e-6."""
    linear = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    linear.kernel.set_value(jnp.array([[1e-6]]))
    layer = nnx.WeightNorm(linear, rngs=nnx.Rngs(0))
    return float(layer(jnp.ones((1, 1)))[0, 0])
