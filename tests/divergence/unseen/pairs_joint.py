"""The gradients of a block that joins two groups of tokens.

Text and image tokens have weights of their own and attend to one another. A
time modulates both. All matrices are square. The Equinox side writes the two
streams as two modules, the NNX side stacks them and scans. Both return the
loss of a flow model and the gradients of all weights.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import stop_gradient

from tests.divergence.mutations.pair import (
    Case,
    Pair,
    filled,
    normal,
)

WIDTH, HEADS, TEXT, IMAGE = 6, 2, 3, 4
DIM = WIDTH // HEADS
PERIOD, SLOPE = 100.0, 0.05


# --- Equinox: two modules ---------------------------------------------------


def time_features(time):
    """Returns cosines and sines of a time, as (WIDTH,)."""
    half = WIDTH // 2
    rates = jnp.exp(-jnp.log(PERIOD) * jnp.arange(half) / half)
    angles = time * rates
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def layer_norm(x):
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.var(wide, axis=-1, keepdims=True)
    return ((wide - mean) / jnp.sqrt(variance + 1e-6)).astype(x.dtype)


class Stream(eqx.Module):
    modulation: jax.Array
    q: jax.Array
    k: jax.Array
    v: jax.Array
    out: jax.Array
    bias: jax.Array
    gate: jax.Array
    up: jax.Array
    down: jax.Array

    def __init__(self):
        square = jnp.ones((WIDTH, WIDTH))
        self.modulation = jnp.ones((4, WIDTH, WIDTH))
        self.q, self.k, self.v, self.out = (square,) * 4
        self.bias = jnp.ones(WIDTH)
        self.gate, self.up, self.down = (square,) * 3

    def modulate(self, context):
        """Returns a shift, a scale and two gates."""
        return [weight @ context for weight in self.modulation]

    def project(self, x, context):
        shift, scale, *_ = self.modulate(context)
        # lacks: joint_one_scale
        y = layer_norm(x) * (1 + scale) + shift
        return [
            (y @ weight.T).reshape(-1, HEADS, DIM)
            for weight in (self.q, self.k, self.v)
        ]

    def finish(self, x, mixed, context):
        *_, first, second = self.modulate(context)
        # lacks: joint_gate, joint_bias
        x = x + first * (mixed @ self.out.T + self.bias)
        y = layer_norm(x)
        hidden = jax.nn.silu(y @ self.gate.T) * (y @ self.up.T)
        return x + second * (hidden @ self.down.T)


class Joint(eqx.Module):
    text: Stream
    image: Stream
    context: jax.Array
    head: jax.Array

    def __init__(self):
        self.text, self.image = Stream(), Stream()
        self.context = jnp.ones((WIDTH, WIDTH))
        self.head = jnp.ones((WIDTH, WIDTH))

    def __call__(self, text, image, time):
        # lacks: joint_stray_stop
        context = jax.nn.silu(self.context @ time_features(time))
        ours = self.text.project(text, context)
        theirs = self.image.project(image, context)
        q, k, v = (
            jnp.concatenate(pair) for pair in zip(ours, theirs, strict=True)
        )
        scores = jnp.einsum("qhd,khd->hqk", q, k) / math.sqrt(DIM)
        weights = jax.nn.softmax(scores.astype(jnp.float32))
        mixed = jnp.einsum("hqk,khd->qhd", weights.astype(v.dtype), v)
        mixed = mixed.reshape(-1, WIDTH)
        image = self.image.finish(image, mixed[TEXT:], context)
        text = self.text.finish(text, mixed[:TEXT], context)
        return layer_norm(image) @ self.head.T, text


def flow_loss(model, text, clean, noise, time):
    image = (1 - time) * noise + time * clean
    velocity, text = model(text, image, time)
    error = velocity - (clean - noise)
    square = jnp.mean(error**2, axis=-1)
    # lacks: joint_missing_stop
    weight = 1 / (jax.lax.stop_gradient(square) + 0.5)
    # lacks: joint_no_penalty
    return jnp.mean(weight * square) + SLOPE * jnp.mean(text**2)


# --- NNX: streams that are stacked ------------------------------------------


NAMES = ("modulation", "q", "k", "v", "out", "bias", "gate", "up", "down")


class Streams(nnx.Module):
    """Both streams: the first axis of each parameter is the stream."""

    modulation: nnx.Param
    q: nnx.Param
    k: nnx.Param
    v: nnx.Param
    out: nnx.Param
    bias: nnx.Param
    gate: nnx.Param
    up: nnx.Param
    down: nnx.Param

    def __init__(self, left, fault):
        for name in NAMES:
            pair = [getattr(s, name) for s in (left.text, left.image)]
            if pair[0].ndim > 1:
                pair = [weight.mT for weight in pair]
            setattr(self, name, nnx.Param(jnp.stack(pair)))
        self.context = nnx.Param(left.context.T)
        self.head = nnx.Param(left.head.T)
        self.fault = fault

    def condition(self, time):
        period = 1000.0 if self.fault == "joint_period" else PERIOD
        power = jnp.linspace(0, 1, WIDTH // 2, endpoint=False)
        angles = time / period**power  # fault: joint_period
        table = [jnp.cos(angles), jnp.sin(angles)]
        if self.fault == "joint_sines":
            table.reverse()
        # fault: joint_sines
        context = jnp.hstack(table) @ self.context[...]
        act = nnx.gelu if self.fault == "joint_act" else nnx.silu
        context = act(context)  # fault: joint_act
        if self.fault == "joint_stray_stop":
            context = stop_gradient(context)  # fault: joint_stray_stop
        # consumer: joint_act, joint_stray_stop
        return jnp.einsum("i,smij->msj", context, self.modulation[...])

    def normalize(self, x, last=False):
        eps = 1e-5 if self.fault == "joint_eps" and not last else 1e-6
        wide = jnp.asarray(x, jnp.float32)
        centered = wide - wide.mean(-1, keepdims=True)
        power = jnp.square(centered).mean(-1, keepdims=True)
        # fault: joint_eps
        return (centered * jax.lax.rsqrt(power + eps)).astype(x.dtype)

    def read(self, i, x, shift, scale):
        """Returns the heads of queries, keys and values of stream `i`."""
        if self.fault == "joint_modulation":
            shift, scale = scale, shift
        y = self.normalize(x)
        if self.fault == "joint_one_scale":
            y = y * scale + shift  # fault: joint_one_scale
        else:
            y = y + y * scale + shift  # fault: joint_modulation
        q, k, v = self.q[i], self.k[i], self.v[i]
        if self.fault == "joint_swapped_qk":
            q, k = k, q
        if self.fault == "joint_value":
            v = v.T
        # fault: joint_swapped_qk, joint_value
        # consumer: joint_one_scale
        return [(y @ w).reshape(len(y), HEADS, DIM) for w in (q, k, v)]

    def attend(self, text, image):
        q = jnp.vstack([text[0], image[0]])
        k = jnp.vstack([text[1], image[1]])
        v = jnp.vstack([text[2], image[2]])
        if self.fault == "joint_order":
            v = jnp.vstack([image[2], text[2]])  # fault: joint_order
        q, k, v = (jnp.swapaxes(x, 0, 1) for x in (q, k, v))
        if self.fault == "joint_scaled_gradient":
            # fault: joint_scaled_gradient
            k = 0.5 * k + stop_gradient(0.5 * k)
        # consumer: joint_scaled_gradient
        # consumer: joint_swapped_qk
        scores = (q @ k.mT).astype(jnp.float32) * DIM**-0.5
        axis = 1 if self.fault == "joint_softmax_axis" else -1
        # fault: joint_softmax_axis
        shares = jax.nn.softmax(scores, axis).astype(v.dtype)
        # consumer: joint_order
        mixed = jnp.swapaxes(shares @ v, 0, 1)
        return mixed.reshape(-1, WIDTH)

    def write(self, i, x, mixed, gates):
        out = mixed @ self.out[i]
        if self.fault != "joint_bias":
            out = out + self.bias[i]
        if self.fault != "joint_gate":
            out = gates[0] * out  # consumer: joint_bias
        x = out + x  # consumer: joint_gate
        y = self.normalize(x)
        gate, up = self.gate[i], self.up[i]
        if self.fault == "joint_halves":
            gate, up = up, gate
        # fault: joint_halves
        hidden = nnx.silu(y @ gate) * (y @ up)
        return x + gates[1] * (hidden @ self.down[i])

    def __call__(self, text, image, time):
        shift, scale, *gates = self.condition(time)
        first = self.read(0, text, shift[0], scale[0])
        second = self.read(1, image, shift[1], scale[1])
        mixed = self.attend(first, second)
        parts = jnp.split(mixed, [TEXT])
        if self.fault == "joint_split":
            # fault: joint_split
            parts = jnp.split(mixed, [IMAGE])[::-1]
        gates = jnp.stack(gates)
        # consumer: joint_split
        text = self.write(0, text, parts[0], gates[:, 0])
        image = self.write(1, image, parts[1], gates[:, 1])
        return text, self.normalize(image, last=True) @ self.head[...]


def objective(model, text, clean, noise, time):
    fault = model.fault
    image = noise + time * (clean - noise)
    text, velocity = model(text, image, time)
    target = clean - noise
    if fault == "joint_target":
        target = noise - clean  # fault: joint_target
    residual = velocity - target  # consumer: joint_target
    square = jnp.sum(jnp.square(residual), -1) / WIDTH
    still = square if fault == "joint_missing_stop" else stop_gradient(square)
    # consumer: joint_missing_stop
    loss = jnp.sum(square / (0.5 + still))
    if fault != "joint_sum":
        loss = loss / IMAGE
    if fault == "joint_halved":
        loss = 0.5 * loss  # fault: joint_halved
    # consumer: joint_sum
    if fault == "joint_no_penalty":
        return loss
    slope = 0.1 if fault == "joint_penalty" else SLOPE
    # fault: joint_penalty
    # consumer: joint_sum
    return loss + slope * jnp.square(text).mean()


def left_gradients(model, *data):
    loss, grads = eqx.filter_value_and_grad(flow_loss)(model, *data)
    both = (grads.text, grads.image)
    return loss, {
        **{name: [getattr(s, name) for s in both] for name in NAMES},
        "context": grads.context,
        "head": grads.head,
    }


def right_gradients(model, *data):
    loss, grads = nnx.value_and_grad(objective)(model, *data)
    arrays = {name: grads[name][...] for name in (*NAMES, "context", "head")}
    arrays = {
        name: x if name == "bias" else x.mT for name, x in arrays.items()
    }
    return loss, {
        name: list(x) if name in NAMES else x for name, x in arrays.items()
    }


def joint(rng, fault=""):
    left = filled(rng, Joint())
    left = jax.tree.map(lambda x: x / 2, left)
    data = (
        normal(rng, TEXT, WIDTH),
        normal(rng, IMAGE, WIDTH),
        normal(rng, IMAGE, WIDTH),
        jnp.float32(0.3),
    )
    return Case(
        left_gradients,
        right_gradients,
        (left, *data),
        (Streams(left, fault), *data),
    )


PAIRS = (
    Pair(
        joint,
        (
            "joint_period",
            "joint_sines",
            "joint_act",
            "joint_stray_stop",
            "joint_eps",
            "joint_modulation",
            "joint_one_scale",
            "joint_swapped_qk",
            "joint_value",
            "joint_order",
            "joint_scaled_gradient",
            "joint_softmax_axis",
            "joint_gate",
            "joint_bias",
            "joint_halves",
            "joint_split",
            "joint_target",
            "joint_missing_stop",
            "joint_sum",
            "joint_halved",
            "joint_penalty",
            "joint_no_penalty",
        ),
    ),
)
