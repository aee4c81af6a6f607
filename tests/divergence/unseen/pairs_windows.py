"""Attention in shifted windows with a table of positions, in bfloat16.

The Equinox side takes one image with channels first and cuts windows by
reshaping. The NNX side takes a batch with channels last and gathers the
pixels of each window. Both score in bfloat16.
"""

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

CHANNELS, HEADS, SIZE, WINDOW, SHIFT = 4, 2, 4, 2, 1
DIM = CHANNELS // HEADS
TOKENS = WINDOW * WINDOW
COLORS, CLASSES, BATCH = 3, 5, 2
HIDDEN = 6
RANGE, BOUND = 8.0, 16.0


# --- Equinox: one image, channels first -------------------------------------


class Stem(eqx.Module):
    patch: eqx.nn.Conv2d
    local: eqx.nn.Conv2d

    def __init__(self):
        self.patch = eqx.nn.Conv2d(COLORS, CHANNELS, 2, 2, key=KEY)
        self.local = eqx.nn.Conv2d(
            CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, key=KEY
        )

    def __call__(self, image):
        x = self.patch(image)
        return x + self.local(x)


class LayerNorm(eqx.Module):
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(-1, keepdims=True)
        wide = wide / jnp.sqrt(jnp.var(wide, -1, keepdims=True) + 1e-5)
        return wide.astype(x.dtype) * self.weight + self.bias


class Positions(eqx.Module):
    """A bias for each head from the distances of two tokens."""

    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self):
        self.inner = eqx.nn.Linear(2, HIDDEN, key=KEY)
        self.outer = eqx.nn.Linear(HIDDEN, HEADS, use_bias=False, key=KEY)

    def __call__(self):
        steps = jnp.arange(1 - WINDOW, WINDOW, dtype=jnp.float32)
        steps = steps / (WINDOW - 1) * RANGE
        steps = jnp.sign(steps) * jnp.log2(jnp.abs(steps) + 1) / 3.0
        table = jnp.stack(jnp.meshgrid(steps, steps, indexing="ij"), -1)
        hidden = jax.nn.relu(jax.vmap(jax.vmap(self.inner))(table))
        table = (hidden @ self.outer.weight.T).reshape(-1, HEADS)
        rows, columns = np.divmod(np.arange(TOKENS), WINDOW)
        far = rows[:, None] - rows + WINDOW - 1
        near = columns[:, None] - columns + WINDOW - 1
        bias = table[far * (2 * WINDOW - 1) + near]
        return BOUND * jax.nn.sigmoid(bias.transpose(2, 0, 1))


class WindowAttention(eqx.Module):
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    sharpness: jax.Array
    positions: Positions

    def __init__(self):
        self.qkv = eqx.nn.Linear(CHANNELS, 3 * CHANNELS, key=KEY)
        self.out = eqx.nn.Linear(CHANNELS, CHANNELS, key=KEY)
        self.sharpness = jnp.ones(HEADS)
        self.positions = Positions()

    def __call__(self, tokens):
        """Mixes the tokens (TOKENS, CHANNELS) of one window."""
        qkv = jax.vmap(self.qkv)(tokens)
        q, k, v = qkv.reshape(TOKENS, 3, HEADS, DIM).transpose(1, 2, 0, 3)
        # lacks: win_unit
        q = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
        k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
        q, k = q.astype(jnp.bfloat16), k.astype(jnp.bfloat16)
        scores = jnp.matmul(
            q, k.mT, preferred_element_type=jnp.float32
        ).astype(tokens.dtype)
        # lacks: win_exp
        scores = scores * jnp.exp(self.sharpness)[:, None, None]
        weights = jax.nn.softmax(scores + self.positions(), axis=-1)
        mixed = jnp.swapaxes(weights @ v, 0, 1).reshape(TOKENS, CHANNELS)
        return jax.vmap(self.out)(mixed)


class Network(eqx.Module):
    stem: Stem
    attention: WindowAttention
    norm: LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self):
        self.stem = Stem()
        self.attention = WindowAttention()
        self.norm = LayerNorm(jnp.ones(CHANNELS), jnp.ones(CHANNELS))
        self.up = eqx.nn.Linear(CHANNELS, HIDDEN, key=KEY)
        self.down = eqx.nn.Linear(HIDDEN, CHANNELS, key=KEY)
        self.head = eqx.nn.Linear(CHANNELS, CLASSES, key=KEY)

    def windows(self, x):
        """Applies the attention to shifted windows of (SIZE, SIZE, C)."""
        count = SIZE // WINDOW
        # lacks: win_shift
        x = jnp.roll(x, (-SHIFT, -SHIFT), axis=(0, 1))
        x = x.reshape(count, WINDOW, count, WINDOW, CHANNELS)
        # lacks: win_order
        x = x.transpose(0, 2, 1, 3, 4).reshape(-1, TOKENS, CHANNELS)
        x = jax.vmap(self.attention)(x)
        x = x.reshape(count, count, WINDOW, WINDOW, CHANNELS)
        x = x.transpose(0, 2, 1, 3, 4).reshape(SIZE, SIZE, CHANNELS)
        # lacks: win_unshifted
        return jnp.roll(x, (SHIFT, SHIFT), axis=(0, 1))

    def __call__(self, image):
        x = self.stem(image).transpose(1, 2, 0)
        # lacks: win_post_norm
        x = x + self.norm(self.windows(x))
        y = jax.vmap(jax.vmap(self.up))(x)
        y = jax.vmap(jax.vmap(self.down))(jax.nn.gelu(y))
        x = x + self.norm(y)
        # lacks: win_head_bias
        return self.head(x.mean((0, 1)))


# --- NNX: a batch, channels last --------------------------------------------


class Embed(nnx.Module):
    def __init__(self, left, fault):
        patch = left.patch.weight.transpose(2, 3, 1, 0)
        if fault == "win_patch":
            patch = patch.swapaxes(0, 1)
        local = jnp.moveaxis(left.local.weight, (0, 1), (3, 2))
        if fault == "win_flipped":
            local = local[::-1]
        self.patch = nnx.Conv(
            COLORS,
            CHANNELS,
            (2, 2),
            (2, 2),
            kernel_init=given(patch),
            bias_init=given(left.patch.bias.ravel()),
            rngs=RNGS,
        )
        self.local = nnx.Conv(
            CHANNELS,
            CHANNELS,
            (3, 3),
            padding="SAME",
            feature_group_count=CHANNELS,
            kernel_init=given(local),
            bias_init=given(left.local.bias.ravel()),
            rngs=RNGS,
        )

    def __call__(self, images):
        patches = self.patch(images)  # fault: win_patch
        mixed = self.local(patches)  # fault: win_flipped
        return mixed + patches


def distances(fault):
    """Returns the log-spaced distances of all pairs of tokens."""
    index = jnp.arange(WINDOW)
    # consumer: win_direction
    grid = jnp.stack(jnp.meshgrid(index, index, indexing="ij"), -1)
    grid = grid.reshape(TOKENS, 2)
    delta = grid[:, None] - grid[None]
    if fault == "win_direction":
        delta = grid[None] - grid[:, None]  # fault: win_direction
    if fault == "win_offset":
        delta = delta + 1  # fault: win_offset
    scope = 4.0 if fault == "win_range" else RANGE
    # fault: win_range
    # consumer: win_direction, win_offset
    delta = delta.astype(jnp.float32) * (scope / (WINDOW - 1))
    size = jnp.log1p(jnp.abs(delta)) / jnp.log(RANGE)
    # consumer: win_range
    return jnp.where(delta < 0, -size, size)


class WindowMixer(nnx.Module):
    def __init__(self, left, fault):
        rows = jnp.split(left.qkv.weight, 3)
        biases = jnp.split(left.qkv.bias, 3)
        if fault == "win_swapped_qk":
            rows[0], rows[1] = rows[1], rows[0]
            biases[0], biases[1] = biases[1], biases[0]
        if fault == "win_values":
            rows[2] = rows[2].T
        self.kernels = nnx.List(nnx.Param(row.T) for row in rows)
        self.biases = nnx.List(nnx.Param(bias) for bias in biases)
        self.sharpness = nnx.Param(left.sharpness)
        self.inner = linear_of(left.positions.inner)
        self.outer = nnx.Param(left.positions.outer.weight)
        self.out = linear_of(left.out)
        self.fault = fault

    def bias(self):
        scale = 8.0 if self.fault == "win_bound" else BOUND
        hidden = nnx.relu(self.inner(distances(self.fault)))
        per_head = jnp.einsum("qkf,hf->hqk", hidden, self.outer[...])
        return scale / (1 + jnp.exp(-per_head))  # fault: win_bound

    def heads(self, x):
        if self.fault == "win_heads":
            x = x.reshape(*x.shape[:-1], DIM, HEADS)  # fault: win_heads
            return jnp.moveaxis(x, -1, -3)  # fault: win_heads
        return x.reshape(*x.shape[:-1], HEADS, DIM).swapaxes(-2, -3)

    def __call__(self, x):
        """Mixes (..., TOKENS, CHANNELS)."""
        q, k, v = (
            # fault: win_swapped_qk, win_values
            # consumer: win_heads
            self.heads(x @ kernel[...] + bias[...])
            for kernel, bias in zip(self.kernels, self.biases, strict=True)
        )
        scores = self.score(q, k)
        # consumer: win_bound, win_exp, win_direction
        shares = nnx.softmax(scores + self.bias())
        mixed = jnp.einsum("...hqk,...hkd->...qhd", shares, v)
        return self.out(mixed.reshape(x.shape))

    def score(self, q, k):
        if self.fault != "win_unit":
            q, k = unit(q), unit(k)
        narrow = jnp.float16 if self.fault == "win_narrow" else jnp.bfloat16
        # fault: win_narrow
        # consumer: win_unit, win_swapped_qk
        q, k = (x.astype(narrow).astype(jnp.float32) for x in (q, k))
        # consumer: win_unit, win_swapped_qk
        scores = jnp.einsum("...qd,...kd->...qk", q, k)
        sharpness = self.sharpness[...].reshape(HEADS, 1, 1)
        if self.fault == "win_exp":
            return scores * sharpness  # fault: win_exp
        return scores * jnp.exp(sharpness)


def unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True))


def cut(indices, transposed=False):
    """Cuts the flat indices of an image into windows."""
    count = SIZE // WINDOW
    rows = np.split(np.reshape(indices, (SIZE, SIZE)), count)
    cells = [cell for row in rows for cell in np.split(row, count, 1)]
    cells = [cell.T if transposed else cell for cell in cells]
    return np.stack([cell.ravel() for cell in cells])


def pixels(fault):
    """Returns the flat indices of the pixels of each shifted window."""
    grid = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
    axes = 0 if fault == "win_shift" else (0, 1)
    return cut(np.roll(grid, -SHIFT, axes), fault == "win_order")


class Blocks(nnx.Module):
    def __init__(self, left, fault):
        self.embed = Embed(left.stem, fault)
        self.mixer = WindowMixer(left.attention, fault)
        self.norm = nnx.LayerNorm(
            CHANNELS,
            epsilon=1e-3 if fault == "win_eps" else 1e-5,
            scale_init=given(left.norm.weight),
            bias_init=given(left.norm.bias),
            reduction_axes=1 if fault == "win_norm_axis" else -1,
            rngs=RNGS,
        )
        self.up, self.down = linear_of(left.up), linear_of(left.down)
        self.head = linear_of(left.head, use_bias=fault != "win_head_bias")
        self.fault = fault

    def attend(self, x):
        where = pixels(self.fault)
        # fault: win_shift, win_order
        mixed = self.mixer(x[:, where])
        if self.fault == "win_unshifted":
            where = cut(np.arange(SIZE * SIZE))
        back = jnp.zeros_like(x)
        # fault: win_unshifted
        return back.at[:, where.ravel()].set(mixed.reshape(x.shape))

    def __call__(self, images):
        x = self.embed(images).reshape(len(images), -1, CHANNELS)
        if self.fault == "win_post_norm":
            x = self.norm(x + self.attend(x))  # fault: win_post_norm
        else:
            # fault: win_eps, win_norm_axis
            x = x + self.norm(self.attend(x))
        tanh = self.fault != "win_gelu"
        y = nnx.gelu(self.up(x), approximate=tanh)  # fault: win_gelu
        x = x + self.norm(self.down(y))
        if self.fault == "win_pool":
            pooled = x.max(1)  # fault: win_pool
        else:
            pooled = x.mean(1)
        # fault: win_head_bias
        # consumer: win_pool
        return self.head(pooled)


def windows(rng, fault=""):
    left = filled(rng, Network())
    images = 0.2 * normal(rng, BATCH, COLORS, 2 * SIZE, 2 * SIZE)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        (left, images),
        (Blocks(left, fault), images.transpose(0, 2, 3, 1)),
    )


PAIRS = (
    Pair(
        windows,
        (
            "win_patch",
            "win_flipped",
            "win_direction",
            "win_offset",
            "win_range",
            "win_swapped_qk",
            "win_values",
            "win_bound",
            "win_heads",
            "win_unit",
            "win_narrow",
            "win_exp",
            "win_shift",
            "win_order",
            "win_unshifted",
            "win_post_norm",
            "win_eps",
            "win_norm_axis",
            "win_gelu",
            "win_pool",
            "win_head_bias",
        ),
        leaves={"win_patch": "patch", "win_flipped": "local"},
    ),
)
