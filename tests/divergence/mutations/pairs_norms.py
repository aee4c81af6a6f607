"""Normalisations and dropout, with their statistics and their keys."""

from functools import partial
from typing import Any

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
    linear_of,
    normal,
)

# --- the libraries' layer norms ---------------------------------------------


class LeftNormed(eqx.Module):
    norm: eqx.nn.LayerNorm
    linear: eqx.nn.Linear

    def __init__(self):
        self.norm = eqx.nn.LayerNorm(6, eps=1e-5)
        self.linear = eqx.nn.Linear(6, 4, key=KEY)

    def __call__(self, x):
        x = self.norm(x)  # lacks: ln_scale, ln_mean, ln_missing
        return self.linear(x)


class RightNormed(nnx.Module):
    def __init__(self, left, fault):
        norm = nnx.RMSNorm if fault == "ln_mean" else nnx.LayerNorm
        options: dict[str, Any] = {"scale_init": given(left.norm.weight)}
        if fault != "ln_mean":
            options["bias_init"] = given(left.norm.bias)
        if fault == "ln_axis":
            options["reduction_axes"] = (0, 1)
        self.norm = norm(
            6,
            epsilon=1e-6 if fault == "ln_eps" else 1e-5,
            use_scale=fault != "ln_scale",
            rngs=RNGS,
            **options,
        )
        self.linear = linear_of(left.linear)
        self.fault = fault

    def __call__(self, x):
        if self.fault != "ln_missing":
            x = self.norm(x)  # fault: ln_eps, ln_scale, ln_mean, ln_axis
        return self.linear(x)  # fault: ln_missing


def layer_norm(rng, fault=""):
    left = filled(rng, LeftNormed())
    return Case(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        (left, x := normal(rng, 3, 6)),
        (RightNormed(left, fault), x),
    )


# --- a layer norm in two passes against one, with folded constants ----------


def two_passes(scale, bias, x):
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


def one_pass(scale, bias, x, fault):
    size = x.shape[-1]
    mean = x @ jnp.full((size,), 1 / size, x.dtype)
    square = jnp.einsum("bi,bi->b", x, x) / size  # fault: hand_mean
    variance = square - mean * mean
    if fault == "hand_unbiased":
        variance = variance * size / (size - 1)  # fault: hand_unbiased
    if fault == "hand_mean":
        variance = square  # fault: hand_mean
    if fault == "hand_eps":
        deviation = jnp.sqrt(variance) + 1e-5  # fault: hand_eps
        inverse = 1 / deviation  # fault: hand_eps
    elif fault == "hand_root":
        inverse = 1 / (variance + 1e-5)  # fault: hand_root
    else:
        inverse = lax.rsqrt(variance + 1e-5)  # consumer: hand_mean
    factor = inverse[:, None] * scale
    if fault == "hand_shift":
        return factor * x + (bias - mean[:, None])  # fault: hand_shift
    return factor * x + (bias - factor * mean[:, None])


def folded_norm(rng, fault=""):
    return Case(
        two_passes,
        partial(one_pass, fault=fault),
        (normal(rng, 6), normal(rng, 6), normal(rng, 3, 6)),
    )


# --- batch norm in training: pmean under vmap against a batch ---------------


class LeftBatchNorm(eqx.Module):
    scale: jax.Array
    bias: jax.Array

    def __call__(self, mean, square, x):
        batch_mean = lax.pmean(jnp.mean(x, 1), "batch")
        batch_square = lax.pmean(jnp.mean(x * x, 1), "batch")
        variance = batch_square - batch_mean**2
        x = (x - batch_mean[:, None]) * lax.rsqrt(variance + 1e-5)[:, None]
        mean = 0.9 * mean + 0.1 * batch_mean  # lacks: bn_not_updated
        unbiased = variance * (12 / 11)  # lacks: bn_biased
        square = 0.9 * square + 0.1 * unbiased  # lacks: bn_not_updated
        x = x * self.scale[:, None] + self.bias[:, None]
        return x, mean, square


def right_batch_norm(weights, mean, var, x, fault):
    axes = (0,) if fault == "bn_axis" else (0, 1)
    batch_mean = x.mean(axes)  # fault: bn_axis
    batch_var = x.var(axes)  # fault: bn_axis
    eps = 1e-3 if fault == "bn_eps" else 1e-5
    used = (mean, var) if fault == "bn_running" else (batch_mean, batch_var)
    centred = x - used[0]  # fault: bn_running
    deviation = jnp.sqrt(used[1] + eps)  # fault: bn_eps, bn_running
    y = centred / deviation
    y = y * weights.scale + weights.bias
    unbiased = batch_var * 12 / 11
    if fault == "bn_biased":
        unbiased = batch_var
    rate = 0.01 if fault == "bn_momentum" else 0.1
    if fault == "bn_reversed":
        rate = 1 - rate
    if fault != "bn_not_updated":
        # fault: bn_momentum, bn_reversed
        mean = mean + rate * (batch_mean - mean)
        # fault: bn_momentum, bn_reversed, bn_biased
        var = var + rate * (unbiased - var)
    return y, mean.reshape(-1), var.reshape(-1)  # fault: bn_not_updated


def batch_norm(rng, fault=""):
    left = LeftBatchNorm(normal(rng, 4), normal(rng, 4))
    mean, var = normal(rng, 4), normal(rng, 4) ** 2
    x = normal(rng, 4, 4, 3)  # N C L

    def many(model, mean, var, x):
        over = jax.vmap(
            model,
            axis_name="batch",
            in_axes=(None, None, 0),
            out_axes=(0, None, None),
        )
        return over(mean, var, x)

    return Case(
        many,
        partial(right_batch_norm, fault=fault),
        (left, mean, var, x),
        (left, mean, var, x.transpose(0, 2, 1)),
    )


# --- group norm: the library's against a reshape, channels last -------------


class LeftGrouped(eqx.Module):
    conv: eqx.nn.Conv1d
    norm: eqx.nn.GroupNorm

    def __init__(self):
        self.conv = eqx.nn.Conv1d(3, 8, 1, key=KEY)
        self.norm = eqx.nn.GroupNorm(2, 8)

    def __call__(self, x):
        return self.norm(jax.nn.softplus(self.conv(x)))


def right_grouped(weights, x, fault):
    x = jnp.einsum("nlc,oc->nlo", x, weights.conv.weight[..., 0])
    x = x + weights.conv.bias[:, 0]
    x = jnp.logaddexp(x, 0)
    scale, bias = weights.norm.weight, weights.norm.bias
    if fault == "gn_order":
        x = x * scale + bias  # fault: gn_order
    groups = 4 if fault == "gn_groups" else 2
    n, size, c = x.shape
    if fault == "gn_interleaved":
        x = x.reshape(n, size, c // groups, groups)
        x = x.swapaxes(2, 3)
    else:
        x = x.reshape(n, size, groups, c // groups)
    axes = (2, 3) if fault == "gn_axes" else (1, 3)
    # fault: gn_groups, gn_axes
    # consumer: gn_interleaved
    mean = x.mean(axes, keepdims=True)
    # fault: gn_groups, gn_axes
    # consumer: gn_interleaved
    var = x.var(axes, keepdims=True)
    x = (x - mean) / jnp.sqrt(var + 1e-5)
    if fault == "gn_interleaved":
        x = x.swapaxes(2, 3)
    x = x.reshape(n, size, c)
    if fault != "gn_order":
        x = x * scale + bias
    return x.swapaxes(1, 2)


def group_norm(rng, fault=""):
    left = filled(rng, LeftGrouped())
    x = normal(rng, 3, 3, 4)
    return Case(
        lambda model, x: jax.vmap(model)(x),
        partial(right_grouped, fault=fault),
        (left, x),
        (left, x.transpose(0, 2, 1)),
    )


# --- dropout: the library's against masks from the same keys ----------------


class LeftDropout(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, inference):
        self.first = eqx.nn.Linear(4, 6, key=KEY)
        self.second = eqx.nn.Linear(6, 6, key=KEY)
        self.dropout = eqx.nn.Dropout(0.3, inference=inference)

    def __call__(self, x, key):
        first, second = jax.random.split(key)
        x = self.dropout(jax.nn.tanh(self.first(x)), key=first)
        # The first line has the dropout that a fault leaves out.
        return self.dropout(self.second(x), key=second)  # lacks: drop_second


def right_dropout(weights, x, keys, train, fault):
    keys = jax.vmap(jax.random.split)(keys)
    keep = 0.3 if fault == "drop_rate" else 0.7
    if fault == "drop_in_eval":
        train = True
    x = x @ weights.first.weight.T + weights.first.bias
    if fault == "drop_before":
        x = dropped(x, keys[:, 0], keep, train, fault)  # fault: drop_before
        x = jnp.tanh(x)  # fault: drop_before
    else:
        # fault: drop_in_eval
        x = dropped(jnp.tanh(x), keys[:, 0], keep, train, fault)
    x = x @ weights.second.weight.T + weights.second.bias
    if fault == "drop_second":
        return x  # fault: drop_second
    second = keys[:, 0 if fault == "drop_same_key" else 1]
    # fault: drop_same_key, drop_in_eval
    return dropped(x, second, keep, train, fault)


def dropped(x, keys, keep, train, fault):
    if not train:
        return x
    size = x.shape[1:]
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, keep, size))
    # fault: drop_rate, drop_in_eval, drop_same_key
    mask = draw(keys)
    if fault == "drop_unscaled":
        return jnp.where(mask, x, 0.0)  # fault: drop_unscaled
    return jnp.where(mask, x / keep, 0.0)  # fault: drop_rate


def dropout(rng, fault="", train=True):
    left = filled(rng, LeftDropout(not train))
    keys = jax.random.split(jax.random.key(int(rng.integers(1000))), 4)
    return Case(
        lambda model, x, keys: jax.vmap(model)(x, keys),
        partial(right_dropout, train=train, fault=fault),
        (left, normal(rng, 4, 4), keys),
    )


def dropout_in_eval(rng, fault=""):
    return dropout(rng, fault, train=False)


PAIRS = (
    Pair(
        layer_norm,
        ("ln_eps", "ln_scale", "ln_mean", "ln_axis", "ln_missing"),
        rewritten=False,
    ),
    Pair(
        folded_norm,
        ("hand_unbiased", "hand_mean", "hand_eps", "hand_root", "hand_shift"),
    ),
    Pair(
        batch_norm,
        (
            "bn_axis",
            "bn_eps",
            "bn_running",
            "bn_biased",
            "bn_momentum",
            "bn_reversed",
            "bn_not_updated",
        ),
    ),
    Pair(group_norm, ("gn_order", "gn_groups", "gn_interleaved", "gn_axes")),
    Pair(
        dropout,
        (
            "drop_rate",
            "drop_before",
            "drop_second",
            "drop_same_key",
            "drop_unscaled",
        ),
    ),
    Pair(dropout_in_eval, ("drop_in_eval",)),
)
