"""A variational autoencoder; the Equinox model takes a batch by itself.

The left model is called without `jax.vmap`, on arrays of its own, and takes
its key as a positional argument that may be `None`. Both return a dict. The
right model keeps functions in its fields.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

from common.layouts import Layout
from tests.pairs.bank import Fault, Pair, Sources

INPUTS, HIDDEN, LATENT = 6, 5, 2


class Dense(eqx.Module):
    w: jax.Array
    b: jax.Array | None

    def __init__(self, key, n_in, n_out, bias=True):
        self.w = jr.normal(key, (n_in, n_out)) / np.sqrt(n_in)
        self.b = jnp.zeros(n_out) if bias else None

    def __call__(self, x):
        y = x @ self.w
        return y if self.b is None else y + self.b


class VAE(eqx.Module):
    encoder: dict[str, Dense]
    decoder: dict[str, Dense]
    log_noise: jax.Array

    def __init__(self, key):
        k1, k2, k3, k4, k5 = jr.split(key, 5)
        self.encoder = {
            "hidden": Dense(k1, INPUTS, HIDDEN),
            "mean": Dense(k2, HIDDEN, LATENT),
            "log_variance": Dense(k3, HIDDEN, LATENT, bias=False),
        }
        self.decoder = {
            "hidden": Dense(k4, LATENT, HIDDEN),
            "output": Dense(k5, HIDDEN, INPUTS),
        }
        self.log_noise = jnp.zeros(INPUTS)

    def __call__(self, x, key):
        h = jax.nn.softplus(self.encoder["hidden"](x))
        mean = self.encoder["mean"](h)
        log_variance = self.encoder["log_variance"](h)
        z = mean
        if key is not None:
            noise = jr.normal(key, mean.shape)
            z = z + jnp.exp(0.5 * log_variance) * noise
        h = jnp.tanh(self.decoder["hidden"](z))
        loc = jax.nn.sigmoid(self.decoder["output"](h))
        divergence = jnp.exp(log_variance) + mean**2 - 1.0 - log_variance
        return {
            "kl": 0.5 * jnp.sum(divergence, axis=-1),
            "reconstruction": loc,
            "scale": jnp.exp(self.log_noise) + jnp.zeros_like(loc),
        }


class Encoder(nnx.Module):
    def __init__(self, sizes, act, rngs):
        self.act = act
        self.layers = nnx.List(
            [
                nnx.Linear(a, b, rngs=rngs)
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            ]
        )
        self.log_var = nnx.Linear(
            sizes[-2], sizes[-1], use_bias=False, rngs=rngs
        )

    def __call__(self, x):
        *first, last = self.layers
        for layer in first:
            x = self.act(layer(x))
        return last(x), self.log_var(x)


class Autoencoder(nnx.Module):
    def __init__(self, rngs):
        sizes = (INPUTS, HIDDEN, LATENT)
        self.encode = Encoder(sizes, nnx.softplus, rngs)
        self.expand = nnx.Linear(LATENT, HIDDEN, rngs=rngs)
        self.loc = nnx.Linear(HIDDEN, INPUTS, rngs=rngs)
        self.sigma = nnx.Param(jnp.zeros((INPUTS,)))
        self.link = jax.nn.sigmoid
        self.prior = None

    def __call__(self, batch, rngs: nnx.Rngs | None = None):
        mu, logvar = self.encode(batch)
        z = mu
        if rngs is not None:
            z = mu + jnp.exp(logvar / 2) * rngs.sample.normal(mu.shape)
        hidden = nnx.tanh(self.expand(z))
        out = self.link(self.loc(hidden))
        kl = -0.5 * (1 + logvar - mu * mu - jnp.exp(logvar))
        scale = jnp.exp(self.sigma[...])
        return {
            "kl": kl.sum(-1),
            "reconstruction": out,
            "scale": jnp.broadcast_to(scale, out.shape),
        }


def left():
    return VAE(jr.key(0))


def right():
    return Autoencoder(nnx.Rngs(1))


def left_call(native, xs, *, training, key=None):
    del training
    return native(xs, key), None


def inputs():
    return np.random.default_rng(0).normal(size=(4, INPUTS))


def truth(take: Sources) -> dict[str, Layout]:
    made = {"sigma": take("log_noise")}
    for new, old in {
        "encode.layers.0": "encoder.hidden",
        "encode.layers.1": "encoder.mean",
        "encode.log_var": "encoder.log_variance",
        "expand": "decoder.hidden",
        "loc": "decoder.output",
    }.items():
        made[f"{new}.kernel"] = take(f"{old}.w")
        if new != "encode.log_var":
            made[f"{new}.bias"] = take(f"{old}.b")
    return made


PAIRS = (
    Pair(
        "a model that takes a batch itself",
        __name__,
        left,
        right,
        inputs,
        truth,
        left_call=left_call,
        faults=(
            Fault(
                "mean is not squared",
                "left",
                "jnp.exp(log_variance) + mean**2 - 1.0 - log_variance",
                "jnp.exp(log_variance) + mean - 1.0 - log_variance",
            ),
            Fault(
                "standard deviation for the variance",
                "right",
                "(1 + logvar - mu * mu - jnp.exp(logvar))",
                "(1 + logvar - mu * mu - jnp.exp(logvar / 2))",
            ),
            Fault(
                "relu instead of softplus",
                "left",
                'jax.nn.softplus(self.encoder["hidden"](x))',
                'jax.nn.relu(self.encoder["hidden"](x))',
                other="x = self.act(layer(x))",
            ),
            Fault(
                "no link function",
                "right",
                "out = self.link(self.loc(hidden))",
                "out = self.loc(hidden)",
                other='loc = jax.nn.sigmoid(self.decoder["output"](h))',
            ),
        ),
    ),
)
