"""The loss and gradients of an audio autoencoder with a table of codes.

The Equinox side takes one waveform with channels first. The NNX side takes a
batch with channels last, finds codes by a matrix product, and fuses the two
projections of a layer.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    normal,
)

LENGTH, WIDTH, KERNEL, CODES, BATCH = 16, 4, 3, 7, 2
DILATIONS = (1, 2, 4)
MU, EMPHASIS, BETA, SHARE, TEMPERATURE = 255.0, 0.97, 0.25, 0.1, 0.5
EPS = 1e-5


# --- Equinox: one waveform, channels first ----------------------------------


class GatedLayer(eqx.Module):
    conv: eqx.nn.Conv1d
    onward: eqx.nn.Conv1d
    aside: eqx.nn.Conv1d

    def __init__(self, dilation):
        self.conv = eqx.nn.Conv1d(
            WIDTH, 2 * WIDTH, KERNEL, dilation=dilation, key=KEY
        )
        self.onward = eqx.nn.Conv1d(WIDTH, WIDTH, 1, key=KEY)
        self.aside = eqx.nn.Conv1d(WIDTH, WIDTH, 1, key=KEY)

    def __call__(self, x):
        past = (KERNEL - 1) * self.conv.dilation[0]
        y = self.conv(jnp.pad(x, ((0, 0), (past, 0))))
        kept, gate = y[:WIDTH], y[WIDTH:]
        y = jnp.tanh(kept) * jax.nn.sigmoid(gate)  # lacks: vq_no_tanh
        return x + self.onward(y), self.aside(y)  # lacks: vq_residual


class Stack(eqx.Module):
    layers: tuple[GatedLayer, ...]

    def __init__(self):
        self.layers = tuple(GatedLayer(one) for one in DILATIONS)

    def __call__(self, x):
        total = jnp.zeros_like(x)
        for layer in self.layers:
            x, aside = layer(x)
            total = total + aside  # lacks: vq_first_skip
        return jax.nn.relu(total)  # lacks: vq_no_relu


class Quantizer(eqx.Module):
    inner: eqx.nn.Conv1d
    scale: jax.Array
    codes: jax.Array
    outer: eqx.nn.Conv1d

    def __init__(self):
        self.inner = eqx.nn.Conv1d(WIDTH, WIDTH, 1, key=KEY)
        self.scale = jnp.zeros(WIDTH)
        self.codes = jnp.zeros((CODES, WIDTH))
        self.outer = eqx.nn.Conv1d(WIDTH, WIDTH, 1, key=KEY)

    def __call__(self, x):
        z = self.inner(x).T
        power = jnp.mean(z**2, axis=1, keepdims=True)
        z = z / jnp.sqrt(power + EPS) * self.scale
        gaps = jnp.sum((z[:, None] - self.codes) ** 2, -1)
        chosen = self.codes[jnp.argmin(gaps, -1)]
        codebook = jnp.mean((chosen - lax.stop_gradient(z)) ** 2)
        # lacks: vq_commit_stop
        commit = jnp.mean((z - lax.stop_gradient(chosen)) ** 2)
        shares = jax.nn.softmax(-gaps / TEMPERATURE, -1)  # lacks: vq_heat
        usage = entropy(jnp.mean(shares, 0))
        spread = jnp.mean(jax.vmap(entropy)(shares)) - usage
        loss = codebook + BETA * commit + SHARE * spread
        # lacks: vq_straight
        passed = z + lax.stop_gradient(chosen - z)
        return self.outer(passed.T), loss


def entropy(shares):
    return -jnp.sum(shares * jnp.log(shares + EPS))


class Codec(eqx.Module):
    first: eqx.nn.Conv1d
    encoder: Stack
    shrink: eqx.nn.Conv1d
    quantizer: Quantizer
    grow: eqx.nn.ConvTranspose1d
    decoder: Stack
    last: eqx.nn.Conv1d

    def __init__(self):
        self.first = eqx.nn.Conv1d(1, WIDTH, 1, key=KEY)
        self.encoder = Stack()
        self.shrink = eqx.nn.Conv1d(WIDTH, WIDTH, 4, 2, padding=1, key=KEY)
        self.quantizer = Quantizer()
        self.grow = eqx.nn.ConvTranspose1d(
            WIDTH, WIDTH, 4, 2, padding=1, key=KEY
        )
        self.decoder = Stack()
        self.last = eqx.nn.Conv1d(WIDTH, 1, 1, key=KEY)

    def __call__(self, x):
        x = self.encoder(self.first(x[None]))
        x, loss = self.quantizer(self.shrink(x))
        return self.last(self.decoder(self.grow(x)))[0], loss


def emphasize(wave):
    before = jnp.concatenate([jnp.zeros(1, wave.dtype), wave[:-1]])
    return wave - EMPHASIS * before


def reconstruct(model, wave):
    wave = jnp.sign(wave) * jnp.log1p(MU * jnp.abs(wave)) / math.log1p(MU)
    found, loss = model(wave)
    # lacks: vq_emphasis_target
    error = emphasize(found) - emphasize(wave)
    # lacks: vq_dropped
    return jnp.mean(error**2) + jnp.mean(jnp.abs(found - wave)) + loss


@eqx.filter_value_and_grad
def mean_loss(model, waves):
    return jnp.mean(jax.vmap(reconstruct, (None, 0))(model, waves))


def left_step(model, waves):
    loss, grads = mean_loss(model, waves)
    return loss, {
        "first": grads.first.weight[:, 0, 0],
        "conv": grads.encoder.layers[0].conv.weight,
        "inner": grads.quantizer.inner.weight[:, :, 0],
        "codes": grads.quantizer.codes,
        "grow": grads.grow.bias[:, 0],
    }


# --- NNX: a batch, channels last --------------------------------------------


def conv_of(conv, flipped=False, **options):
    kernel = conv.weight.transpose(2, 1, 0)
    return nnx.Conv(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        kernel_init=given(kernel[::-1] if flipped else kernel),
        bias_init=given(conv.bias[:, 0]),
        rngs=RNGS,
        **options,
    )


def dense_of(*convs):
    weights = jnp.concatenate([conv.weight[:, :, 0] for conv in convs])
    return nnx.Linear(
        *weights.T.shape,
        kernel_init=given(weights.T),
        bias_init=given(jnp.concatenate([c.bias[:, 0] for c in convs])),
        rngs=RNGS,
    )


class WaveBlock(nnx.Module):
    def __init__(self, layer, dilation, fault):
        self.conv = conv_of(
            layer.conv,
            flipped=fault == "vq_flip",
            padding="SAME" if fault == "vq_pad" else "CAUSAL",
            kernel_dilation=dilation,
        )
        outputs = layer.onward, layer.aside
        if fault == "vq_outputs":
            outputs = outputs[::-1]
        self.outputs = dense_of(*outputs)
        self.fault = fault

    def __call__(self, x):
        # fault: vq_flip, vq_pad, vq_dilation
        # consumer: vq_shared
        y = self.conv(x)
        if self.fault == "vq_halves":
            gate, kept = jnp.split(y, 2, -1)  # fault: vq_halves
        else:
            kept, gate = jnp.split(y, 2, -1)
        if self.fault != "vq_no_tanh":
            kept = nnx.tanh(kept)  # fault: vq_halves
        gate = nnx.sigmoid(gate)  # fault: vq_halves
        # consumer: vq_no_tanh
        both = self.outputs(kept * gate)  # consumer: vq_outputs
        # fault: vq_outputs
        onward, aside = jnp.split(both, 2, -1)
        if self.fault == "vq_residual":
            return onward, aside
        return onward + x, aside


class WaveNet(nnx.Module):
    def __init__(self, stack, fault, shared=None):
        dilations = (1, 2, 3) if fault == "vq_dilation" else DILATIONS
        pairs = zip((shared or stack).layers, dilations, strict=True)
        self.blocks = nnx.List([WaveBlock(*pair, fault) for pair in pairs])
        self.fault = fault

    def __call__(self, x):
        found = []
        for block in self.blocks:
            # consumer: vq_residual, vq_shared
            x, aside = block(x)
            found.append(aside)
        if self.fault == "vq_first_skip":
            found = found[1:]
        total = jnp.stack(found).sum(0)  # consumer: vq_first_skip
        if self.fault == "vq_no_relu":
            return total
        return nnx.relu(total)


def share_entropy(shares):
    return -(shares * jnp.log(shares + EPS)).sum(-1)


class VectorQuantizer(nnx.Module):
    def __init__(self, left, fault):
        self.inner = dense_of(left.inner)
        self.scale = nnx.Param(left.scale)
        self.codes = nnx.Param(left.codes)
        self.outer = dense_of(left.outer)
        self.fault = fault

    def normalize(self, z):
        axis = 1 if self.fault == "vq_rms_axis" else -1
        # fault: vq_rms_axis
        power = (z * z).mean(axis, keepdims=True)
        eps = 1e-2 if self.fault == "vq_eps" else EPS
        # fault: vq_eps
        # consumer: vq_rms_axis
        return z * lax.rsqrt(power + eps) * self.scale[...]

    def nearest(self, z):
        codes = self.codes[...]
        products = z @ codes.T  # fault: vq_distance
        if self.fault != "vq_distance":
            products = 2 * products
        gaps = (z * z).sum(-1, keepdims=True) - products  # fault: vq_distance
        gaps = gaps + (codes * codes).sum(-1)
        index = jnp.argmin(gaps, -1)
        return nnx.one_hot(index, CODES, dtype=z.dtype) @ codes, gaps

    def usage_loss(self, gaps):
        if self.fault != "vq_heat":
            gaps = gaps / TEMPERATURE
        shares = nnx.softmax(-gaps)  # consumer: vq_heat
        single = share_entropy(shares).mean()
        axes = (0, 1) if self.fault == "vq_usage" else 1
        usage = share_entropy(shares.mean(axes)).mean()  # fault: vq_usage
        if self.fault == "vq_entropy_sign":
            return SHARE * (usage - single)  # fault: vq_entropy_sign
        return SHARE * (single - usage)

    def __call__(self, x):
        stop = lax.stop_gradient
        z = self.normalize(self.inner(x))
        codes, gaps = self.nearest(z)
        target = codes if self.fault == "vq_commit_stop" else stop(codes)
        commit = jnp.square(target - z)  # consumer: vq_commit_stop
        lookup = jnp.square(stop(z) - codes)
        if self.fault == "vq_beta":
            loss = commit + BETA * lookup  # fault: vq_beta
        else:
            loss = lookup + BETA * commit
        if self.fault == "vq_sum":
            loss = loss.sum(-1).mean()  # fault: vq_sum
        else:
            loss = loss.mean()
        loss = loss + self.usage_loss(gaps)  # consumer: vq_sum
        if self.fault == "vq_straight":
            passed = codes  # consumer: vq_straight
        elif self.fault == "vq_turned":
            passed = codes + stop(z - codes)  # fault: vq_turned
        else:
            passed = z + stop(codes - z)
        if self.fault == "vq_cast":
            # fault: vq_cast
            passed = passed.astype(jnp.bfloat16).astype(z.dtype)
        # consumer: vq_straight, vq_turned, vq_cast
        return self.outer(passed), loss


class AutoEncoder(nnx.Module):
    def __init__(self, left, fault):
        self.first = dense_of(left.first)
        self.encoder = WaveNet(left.encoder, fault)
        padding = (2, 0) if fault == "vq_shrink_pad" else 1
        self.shrink = conv_of(left.shrink, padding=[padding])
        self.quantizer = VectorQuantizer(left.quantizer, fault)
        grow = left.grow
        self.grow = nnx.ConvTranspose(
            WIDTH,
            WIDTH,
            grow.kernel_size,
            grow.stride,
            padding="SAME",
            transpose_kernel=fault == "vq_grow",
            kernel_init=given(grow.weight.transpose(2, 1, 0)),
            bias_init=given(grow.bias[:, 0]),
            rngs=RNGS,
        )
        shared = left.encoder if fault == "vq_shared" else None
        self.decoder = WaveNet(left.decoder, fault, shared)
        self.last = dense_of(left.last)
        self.fault = fault

    def __call__(self, x):
        x = self.encoder(self.first(x[..., None]))
        # fault: vq_shrink_pad
        # consumer: vq_no_relu
        x = self.shrink(x)
        x, loss = self.quantizer(x)
        x = self.grow(x)  # fault: vq_grow
        x = self.decoder(x)  # fault: vq_shared
        return self.last(x)[..., 0], loss


def filter_wave(waves, fault):
    amount = 0.95 if fault == "vq_emphasis" else EMPHASIS
    # fault: vq_emphasis
    kernel = jnp.asarray([[[-amount, 1.0]]], waves.dtype)
    waves = waves[:, None]
    # fault: vq_emphasis
    return lax.conv_general_dilated(waves, kernel, (1,), [(1, 0)])[:, 0]


def batch_loss(model, waves, fault):
    top = 256.0 if fault == "vq_mu" else MU
    # fault: vq_mu
    loud = jnp.log(1 + top * jnp.abs(waves)) / math.log(1 + top)
    waves = jnp.where(waves < 0, -loud, loud)  # consumer: vq_mu
    found, loss = model(waves)
    target = waves
    if fault != "vq_emphasis_target":
        target = filter_wave(waves, fault)
    # consumer: vq_emphasis_target
    error = jnp.square(filter_wave(found, fault) - target).mean()
    if fault == "vq_dropped":
        return error + loss  # consumer: vq_dropped
    return error + jnp.abs(found - waves).mean() + loss


def codec(rng, fault=""):
    left = jax.tree.map(lambda x: 0.6 * x, filled(rng, Codec()))
    waves = jnp.tanh(normal(rng, BATCH, LENGTH))

    def right_step(model, waves):
        run = nnx.value_and_grad(batch_loss)
        loss, grads = run(model, waves, fault)
        conv = grads.encoder.blocks[0].conv.kernel[...]
        return loss, {
            "first": grads.first.kernel[0],
            "conv": conv.transpose(2, 1, 0),
            "inner": grads.quantizer.inner.kernel[...].T,
            "codes": grads.quantizer.codes[...],
            "grow": grads.grow.bias[...],
        }

    return Case(
        left_step, right_step, (left, waves), (AutoEncoder(left, fault), waves)
    )


FAULTS = """
mu flip pad dilation halves no_tanh outputs residual first_skip no_relu
shrink_pad rms_axis eps distance heat usage entropy_sign commit_stop
beta sum straight turned cast grow shared emphasis emphasis_target dropped
"""
PAIRS = (Pair(codec, tuple(f"vq_{one}" for one in FAULTS.split())),)
