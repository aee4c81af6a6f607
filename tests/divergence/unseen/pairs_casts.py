"""The gradient of a model that casts to float32 and bfloat16 inside."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from tests.divergence.mutations.pair import Case, Pair, normal

WIDTH, CLASSES, SIZE = 6, 5, 4


class Mixed(eqx.Module):
    scale: jax.Array
    shift: jax.Array
    first: jax.Array
    bias: jax.Array
    second: jax.Array
    head: jax.Array

    def norm(self, x):
        x = x.astype("float32")
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        x = (x - mean) / jnp.sqrt(var + 1e-5)
        # lacks: mix_no_scale
        return x * self.scale + self.shift

    def __call__(self, x):
        y = self.norm(x).astype("bfloat16").astype("float32")
        # lacks: mix_no_bias
        y = jax.nn.gelu(y @ self.first + self.bias, approximate=False)
        x = x + 0.5 * (y @ self.second)
        return self.norm(x) @ self.head  # lacks: mix_no_norm


def left_loss(model, x, labels):
    logits = model(x).astype("float32")
    shares = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(shares, labels[:, None], -1)[:, 0]
    square = jax.nn.logsumexp(logits, -1) ** 2
    # lacks: mix_no_penalty
    return -picked.mean() + 1e-2 * square.mean()


def norm(model, x, fault):
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, -1, keepdims=True)
    if fault == "mix_stopped_mean":
        mean = jax.lax.stop_gradient(mean)  # fault: mix_stopped_mean
    centered = x - mean  # consumer: mix_stopped_mean
    power = jnp.mean(jnp.square(centered), -1, keepdims=True)
    if fault == "mix_unbiased":
        power = power * WIDTH / (WIDTH - 1)  # fault: mix_unbiased
    if fault == "mix_stopped_var":
        power = jax.lax.stop_gradient(power)  # fault: mix_stopped_var
    eps = 1e-6 if fault == "mix_eps" else 1e-5
    # fault: mix_eps
    # consumer: mix_stopped_var, mix_unbiased
    x = centered * jax.lax.rsqrt(power + eps)
    if fault == "mix_no_scale":
        return x + model.shift
    return model.scale * x + model.shift


def forward(model, x, fault):
    y = norm(model, x, fault)
    dtype = jnp.float16 if fault == "mix_float16" else jnp.bfloat16
    y = y.astype(dtype).astype(x.dtype)  # fault: mix_float16
    weight = model.first
    if fault == "mix_first":
        weight = weight.T
    y = jnp.dot(y, weight)  # fault: mix_first
    if fault != "mix_no_bias":
        y = y + model.bias
    # fault: mix_gelu
    # consumer: mix_no_bias
    y = jax.nn.gelu(y, approximate=fault == "mix_gelu")
    if fault == "mix_second_cast":
        # fault: mix_second_cast
        y = y.astype("bfloat16").astype("float32")
    rate = 0.51 if fault == "mix_rate" else 0.5
    x = x + rate * (y @ model.second)  # fault: mix_rate
    if fault != "mix_no_norm":
        x = norm(model, x, fault)
    return x @ model.head  # consumer: mix_no_norm


def right_loss(model, x, labels, fault):
    logits = forward(model, x, fault).astype(jnp.float32)
    total = jax.nn.logsumexp(logits, -1)
    picked = jnp.sum(jax.nn.one_hot(labels, CLASSES) * logits, -1)
    if fault == "mix_stopped_total":
        # fault: mix_stopped_total
        total = jax.lax.stop_gradient(total)
    loss = jnp.mean(total - picked)  # consumer: mix_stopped_total
    if fault == "mix_sum":
        loss = jnp.sum(total - picked)  # fault: mix_sum
    if fault == "mix_halved":
        loss = 0.5 * loss  # fault: mix_halved
    if fault == "mix_no_penalty":
        return loss
    rate = 2e-2 if fault == "mix_penalty" else 1e-2
    # fault: mix_penalty
    # consumer: mix_stopped_total
    return loss + rate * jnp.mean(jnp.square(total))


def casts(rng, fault=""):
    model = Mixed(
        normal(rng, WIDTH),
        normal(rng, WIDTH),
        0.5 * normal(rng, WIDTH, WIDTH),
        normal(rng, WIDTH),
        0.5 * normal(rng, WIDTH, WIDTH),
        normal(rng, WIDTH, CLASSES),
    )
    labels = jnp.asarray(rng.integers(0, CLASSES, SIZE), "int32")
    return Case(
        lambda *args: jax.value_and_grad(left_loss)(*args),
        lambda *args: jax.value_and_grad(partial(right_loss, fault=fault))(
            *args
        ),
        (model, normal(rng, SIZE, WIDTH), labels),
    )


PAIRS = (
    Pair(
        casts,
        (
            "mix_stopped_mean",
            "mix_unbiased",
            "mix_stopped_var",
            "mix_eps",
            "mix_no_scale",
            "mix_float16",
            "mix_first",
            "mix_no_bias",
            "mix_gelu",
            "mix_second_cast",
            "mix_rate",
            "mix_no_norm",
            "mix_stopped_total",
            "mix_sum",
            "mix_halved",
            "mix_penalty",
            "mix_no_penalty",
        ),
    ),
)
