"""The loss and gradients of a U-Net that predicts the noise of images.

The Equinox side takes one image with channels first. The NNX side takes a
batch with channels last, and attends with a dense layer over its pixels.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    linear_of,
    normal,
)

SIDE, COLORS, WIDTH, GROUPS, HEADS, BATCH = 6, 3, 8, 4, 2, 3
DIM, HALF = WIDTH // HEADS, WIDTH // 2
STEPS, OFFSET, GAMMA, SHARE = 10, 0.008, 5.0, 0.1
EPS = 1e-5


# --- Equinox: one image, channels first -------------------------------------


class ResBlock(eqx.Module):
    norm1: eqx.nn.GroupNorm
    conv1: eqx.nn.Conv2d
    time: eqx.nn.Linear
    norm2: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv2d
    shortcut: eqx.nn.Conv2d | None

    def __init__(self, channels):
        self.norm1 = eqx.nn.GroupNorm(GROUPS, channels, EPS)
        self.conv1 = eqx.nn.Conv2d(channels, WIDTH, 3, padding=1, key=KEY)
        self.time = eqx.nn.Linear(WIDTH, 2 * WIDTH, key=KEY)
        self.norm2 = eqx.nn.GroupNorm(GROUPS, WIDTH, EPS)
        self.conv2 = eqx.nn.Conv2d(WIDTH, WIDTH, 3, padding=1, key=KEY)
        self.shortcut = None
        if channels != WIDTH:
            self.shortcut = eqx.nn.Conv2d(channels, WIDTH, 1, key=KEY)

    def __call__(self, x, emb):
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        emb = jax.nn.silu(emb)  # lacks: un_time_act
        scale, shift = jnp.split(self.time(emb)[:, None, None], 2)
        scale = 1 + scale  # lacks: un_film_one
        h = self.norm2(h) * scale + shift  # lacks: un_film_one
        h = self.conv2(jax.nn.silu(h))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return (x + h) / math.sqrt(2)  # lacks: un_rescale


class SpatialAttention(eqx.Module):
    norm: eqx.nn.GroupNorm
    qkv: eqx.nn.Conv2d
    out: eqx.nn.Conv2d

    def __init__(self):
        self.norm = eqx.nn.GroupNorm(GROUPS, WIDTH, EPS)
        self.qkv = eqx.nn.Conv2d(WIDTH, 3 * WIDTH, 1, key=KEY)
        self.out = eqx.nn.Conv2d(WIDTH, WIDTH, 1, key=KEY)

    def __call__(self, x):
        q, k, v = self.qkv(self.norm(x)).reshape(3, HEADS, DIM, -1)
        scores = jnp.einsum("hdi,hdj->hij", q, k) * DIM**-0.5
        weights = jax.nn.softmax(scores, -1)
        mixed = jnp.einsum("hij,hdj->hdi", weights, v)
        return x + self.out(mixed.reshape(x.shape))


class UNet(eqx.Module):
    embed1: eqx.nn.Linear
    embed2: eqx.nn.Linear
    first: eqx.nn.Conv2d
    down: ResBlock
    shrink: eqx.nn.Conv2d
    middle: tuple[ResBlock, SpatialAttention, ResBlock]
    grow: eqx.nn.Conv2d
    up: ResBlock
    norm: eqx.nn.GroupNorm
    last: eqx.nn.Conv2d

    def __init__(self):
        conv = eqx.nn.Conv2d
        self.embed1 = eqx.nn.Linear(WIDTH, WIDTH, key=KEY)
        self.embed2 = eqx.nn.Linear(WIDTH, WIDTH, key=KEY)
        self.first = conv(COLORS, WIDTH, 3, padding=1, key=KEY)
        self.down = ResBlock(WIDTH)
        self.shrink = conv(WIDTH, WIDTH, 3, 2, padding=1, key=KEY)
        self.middle = ResBlock(WIDTH), SpatialAttention(), ResBlock(WIDTH)
        self.grow = conv(WIDTH, WIDTH, 3, padding=1, key=KEY)
        self.up = ResBlock(2 * WIDTH)
        self.norm = eqx.nn.GroupNorm(GROUPS, WIDTH, EPS)
        self.last = conv(WIDTH, COLORS, 3, padding=1, key=KEY)

    def __call__(self, x, time):
        rates = jnp.exp(-math.log(10_000) * jnp.arange(HALF) / HALF)
        angles = time * rates
        emb = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
        emb = self.embed2(jax.nn.silu(self.embed1(emb)))
        kept = self.down(self.first(x), emb)
        x = self.shrink(kept)
        x = self.middle[0](x, emb)
        x = self.middle[1](x)
        x = self.middle[2](x, emb)
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        # lacks: un_detached
        x = jnp.concatenate([self.grow(x), kept])
        x = self.up(x, emb)
        return self.last(jax.nn.silu(self.norm(x)))


def cosine(time):
    return jnp.cos((time / STEPS + OFFSET) / (1 + OFFSET) * jnp.pi / 2) ** 2


def denoise(model, image, time, noise):
    image = 2 * image - 1  # lacks: un_range
    signal = cosine(time) / cosine(0)
    spread = jnp.sqrt(1 - signal)  # lacks: un_sigma
    noisy = jnp.sqrt(signal) * image + spread * noise
    found = model(noisy, time)
    ratio = signal / (1 - signal)
    weight = jnp.minimum(ratio, GAMMA) / ratio
    loss = weight * jnp.mean((found - noise) ** 2)
    clean = (noisy - spread * found) / jnp.sqrt(signal)
    clean = jnp.clip(clean, -1, 1)
    # lacks: un_dropped
    return loss + SHARE * jnp.mean(jnp.abs(clean - image))


@eqx.filter_value_and_grad
def mean_loss(model, *batch):
    return jnp.mean(jax.vmap(denoise, (None, 0, 0, 0))(model, *batch))


def left_step(model, *batch):
    loss, grads = mean_loss(model, *batch)
    return loss, {
        "embed": grads.embed1.weight,
        "first": grads.first.weight,
        "time": grads.down.time.weight,
        "qkv": grads.middle[1].qkv.weight[:, :, 0, 0],
        "last": grads.last.bias[:, 0, 0],
    }


# --- NNX: a batch, channels last --------------------------------------------


def conv_of(conv, fault, padding: str | int = "SAME"):
    axes = (3, 2, 1, 0) if fault == "un_kernel" else (2, 3, 1, 0)
    return nnx.Conv(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        padding=padding,
        kernel_init=given(conv.weight.transpose(axes)),
        bias_init=given(conv.bias[:, 0, 0]),
        rngs=RNGS,
    )


def norm_of(norm, fault):
    return nnx.GroupNorm(
        norm.channels,
        2 if fault == "un_groups" else norm.groups,
        epsilon=1e-3 if fault == "un_eps" else EPS,
        scale_init=given(norm.weight),
        bias_init=given(norm.bias),
        rngs=RNGS,
    )


class Residual(nnx.Module):
    def __init__(self, left, fault):
        self.before = norm_of(left.norm1, fault)
        self.enter = conv_of(left.conv1, fault)
        self.modulate = linear_of(left.time)
        self.after = norm_of(left.norm2, fault)
        self.leave = conv_of(left.conv2, fault)
        self.match = left.shortcut and conv_of(left.shortcut, fault)
        self.fault = fault

    def __call__(self, x, context):
        # fault: un_groups, un_eps
        # consumer: un_shared
        y = nnx.silu(self.before(x))
        if self.fault == "un_shortcut":
            x = y  # consumer: un_shortcut
        y = self.enter(y)
        # consumer: un_time_act
        film = self.modulate(context)[:, None, None]
        if self.fault == "un_film":
            shift, scale = jnp.split(film, 2, -1)  # fault: un_film
        else:
            scale, shift = jnp.split(film, 2, -1)
        y = self.after(y)
        if self.fault == "un_film_one":
            y = y * scale + shift  # fault: un_film_one
        else:
            y = y + y * scale + shift  # fault: un_film
        y = self.leave(nnx.silu(y))
        if self.match is not None:
            x = self.match(x)
        total = x + y  # fault: un_shortcut
        # consumer: un_rescale
        return total if self.fault == "un_rescale" else total * 0.5**0.5


class Mixer(nnx.Module):
    def __init__(self, left, fault):
        self.norm = norm_of(left.norm, fault)
        self.fused = nnx.Linear(
            WIDTH,
            3 * WIDTH,
            kernel_init=given(left.qkv.weight[:, :, 0, 0].T),
            bias_init=given(left.qkv.bias[:, 0, 0]),
            rngs=RNGS,
        )
        self.out = conv_of(left.out, fault)
        self.fault = fault

    def heads(self, x):
        if self.fault == "un_heads":
            # fault: un_heads
            return x.reshape(*x.shape[:2], DIM, HEADS).swapaxes(2, 3)
        return x.reshape(*x.shape[:2], HEADS, DIM)

    def __call__(self, x):
        tokens = self.norm(x).reshape(len(x), -1, WIDTH)
        parts = jnp.split(self.fused(tokens), 3, -1)
        q, k, v = (self.heads(part) for part in parts)
        size = WIDTH if self.fault == "un_attn_scale" else DIM
        q = q / math.sqrt(size)  # fault: un_attn_scale
        # consumer: un_heads, un_attn_scale
        scores = jnp.einsum("bihd,bjhd->bhij", q, k)
        axis = -2 if self.fault == "un_softmax_axis" else -1
        weights = nnx.softmax(scores, axis)  # fault: un_softmax_axis
        if self.fault == "un_cast":
            # fault: un_cast
            weights = weights.astype("bfloat16").astype(v.dtype)
        # consumer: un_cast
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, v)
        mixed = mixed.reshape(x.shape)  # consumer: un_tokens
        if self.fault == "un_tokens":
            mixed = mixed.swapaxes(1, 2)  # fault: un_tokens
        return x + self.out(mixed)  # consumer: un_tokens


def sinusoids(time, fault):
    base = 1_000.0 if fault == "un_base" else 10_000.0
    count = HALF - 1 if fault == "un_half" else HALF
    # fault: un_base, un_half
    rates = 1 / base ** (jnp.arange(HALF) / count)
    angles = time[:, None] * rates  # consumer: un_base, un_half
    waves = [jnp.sin(angles), jnp.cos(angles)]
    if fault == "un_sincos":
        waves = waves[::-1]
    return jnp.concatenate(waves, -1)  # fault: un_sincos


class Denoiser(nnx.Module):
    def __init__(self, left, fault):
        self.embed = nnx.List([linear_of(left.embed1), linear_of(left.embed2)])
        self.first = conv_of(left.first, fault)
        self.down = Residual(left.down, fault)
        padding = "SAME" if fault == "un_down_pad" else 1
        self.shrink = conv_of(left.shrink, fault, padding)
        self.middle = nnx.List(
            [Residual(left.middle[0], fault), Residual(left.middle[2], fault)]
        )
        self.mixer = Mixer(left.middle[1], fault)
        self.grow = conv_of(left.grow, fault)
        self.up = Residual(left.up, fault)
        self.norm = norm_of(left.norm, fault)
        self.last = conv_of(left.last, fault)
        self.fault = fault

    def __call__(self, x, time):
        context = sinusoids(time, self.fault)
        # consumer: un_sincos
        context = self.embed[1](nnx.silu(self.embed[0](context)))
        if self.fault != "un_time_act":
            context = nnx.silu(context)
        x = self.first(x)  # consumer: un_kernel
        passed = self.down(x, context)
        x = self.shrink(passed)  # fault: un_down_pad
        x = self.mixer(self.middle[0](x, context))
        second = 0 if self.fault == "un_shared" else 1
        x = self.middle[second](x, context)  # fault: un_shared
        how = "bilinear" if self.fault == "un_up" else "nearest"
        # fault: un_up
        x = jax.image.resize(x, (len(x), SIDE, SIDE, WIDTH), how)
        parts = [self.grow(x), passed]
        if self.fault == "un_skip_order":
            parts = parts[::-1]
        if self.fault == "un_detached":
            # fault: un_detached
            parts = [parts[0], jax.lax.stop_gradient(passed)]
        # fault: un_skip_order
        # consumer: un_detached
        x = self.up(jnp.concatenate(parts, -1), context)
        return self.last(nnx.silu(self.norm(x)))


def signals(fault):
    offset = 0.0 if fault == "un_offset" else OFFSET
    # fault: un_offset
    where = (jnp.arange(STEPS) / STEPS + offset) / (1 + offset)
    curve = jnp.square(jnp.cos(0.5 * np.pi * where))  # consumer: un_offset
    return curve / curve[0]


def batch_loss(model, images, time, noise, fault):
    if fault != "un_range":
        images = images * 2 - 1
    signal = signals(fault)[time][:, None, None, None]
    spread = 1 - signal
    if fault != "un_sigma":
        spread = spread**0.5
    # consumer: un_range, un_sigma
    noisy = images * signal**0.5 + noise * spread
    found = model(noisy, time)
    target = images if fault == "un_target" else noise
    error = jnp.square(found - target)  # fault: un_target
    axis = (1, 2, 3)
    if fault == "un_reduction":
        error = error.sum(-1).mean((1, 2))  # fault: un_reduction
    else:
        error = error.mean(axis)
    ratio = (signal / (1 - signal)).ravel()
    if fault == "un_weight":
        weight = jnp.clip(ratio, max=GAMMA) / (ratio + 1)  # fault: un_weight
    else:
        weight = jnp.clip(ratio, max=GAMMA) / ratio
    losses = weight * error  # consumer: un_weight, un_reduction
    if fault != "un_dropped":
        clean = (noisy - spread * found) / signal**0.5
        low = 0 if fault == "un_clip" else -1
        # fault: un_clip
        gaps = jnp.abs(jnp.clip(clean, low, 1) - images)
        losses = losses + SHARE * gaps.mean(axis)
    return losses.mean()  # consumer: un_dropped


def diffusion(rng, fault=""):
    left = jax.tree.map(lambda x: 0.5 * x, filled(rng, UNet()))
    images = jnp.asarray(rng.uniform(size=(BATCH, COLORS, SIDE, SIDE)), "f4")
    time = jnp.asarray([8, 2, 5])
    noise = normal(rng, BATCH, COLORS, SIDE, SIDE)

    def right_step(model, images, time, noise):
        images = images.transpose(0, 2, 3, 1)
        noise = noise.transpose(0, 2, 3, 1)
        run = nnx.value_and_grad(batch_loss)
        loss, grads = run(model, images, time, noise, fault)
        return loss, {
            "embed": grads.embed[0].kernel[...].T,
            "first": grads.first.kernel[...].transpose(3, 2, 0, 1),
            "time": grads.down.modulate.kernel[...].T,
            "qkv": grads.mixer.fused.kernel[...].T,
            "last": grads.last.bias[...],
        }

    inputs = images, time, noise
    return Case(
        left_step,
        right_step,
        (left, *inputs),
        (Denoiser(left, fault), *inputs),
    )


FAULTS = """
range offset sigma base half sincos time_act groups eps film film_one shortcut
rescale kernel down_pad heads attn_scale softmax_axis cast tokens shared up
skip_order detached target clip weight reduction dropped
"""
PAIRS = (Pair(diffusion, tuple(f"un_{one}" for one in FAULTS.split())),)
