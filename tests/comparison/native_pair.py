"""A model in both libraries, with faults that can be planted in it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx

SIZE, WIDTH, BATCH = 3, 4, 6
RULES = "mixer -> copy -> mixer"
"""No layer type says whether the square array is transposed."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with the right model; nothing by default."""

    eps: float = 1e-5
    approximate: bool = False
    transposed: bool = False
    unbiased: bool = False
    stops: bool = False
    stale: bool = False
    momentum: float = 0.9
    casts: str | None = None
    flattened: bool = False
    dropout: float = 0.0
    overwrites: bool = False


class BatchNorm(eqx.Module):
    scale: jax.Array
    mean: eqx.nn.StateIndex
    var: eqx.nn.StateIndex
    axis_name: str = eqx.field(static=True, default="batch")

    def __init__(self):
        self.scale = jnp.ones(WIDTH)
        self.mean = eqx.nn.StateIndex(jnp.zeros(WIDTH))
        self.var = eqx.nn.StateIndex(jnp.ones(WIDTH))

    def __call__(self, x, state, inference):
        mean, var = state.get(self.mean), state.get(self.var)
        if not inference:
            new_mean = jax.lax.pmean(x, self.axis_name)
            new_var = jax.lax.pmean((x - new_mean) ** 2, self.axis_name)
            state = state.set(self.mean, 0.9 * mean + 0.1 * new_mean)
            state = state.set(self.var, 0.9 * var + 0.1 * new_var)
            mean, var = new_mean, new_var
        return self.scale * (x - mean) * jax.lax.rsqrt(var + 1e-5), state


class Left(eqx.Module):
    linear1: eqx.nn.Linear
    norm: BatchNorm
    mixer: jax.Array
    linear2: eqx.nn.Linear
    inference: bool

    def __init__(self, key):
        k1, k2, k3 = jr.split(key, 3)
        self.linear1 = eqx.nn.Linear(SIZE, WIDTH, key=k1)
        self.norm = BatchNorm()
        self.mixer = jr.normal(k3, (WIDTH, WIDTH))
        self.linear2 = eqx.nn.Linear(WIDTH, 2, key=k2)
        self.inference = False

    def __call__(self, x, state):
        x, state = self.norm(self.linear1(x), state, self.inference)
        x = jax.nn.gelu(x, approximate=False)
        x = jax.nn.tanh(self.mixer @ x)
        return {"logits": self.linear2(x)}, state


class RightNorm(nnx.Module):
    def __init__(self, fault, dtype):
        self.scale = nnx.Param(jnp.ones(WIDTH, dtype))
        self.mean = nnx.BatchStat(jnp.zeros(WIDTH, dtype))
        self.var = nnx.BatchStat(jnp.ones(WIDTH, dtype))
        self.fault = fault

    def __call__(self, x, train):
        mean, var = self.mean[...], self.var[...]
        if train:
            mean, var = jnp.mean(x, 0), jnp.var(x, 0)
            old = self.fault.momentum
            self.mean[...] = old * self.mean[...] + (1 - old) * mean
            kept = var * len(x) / (len(x) - 1) if self.fault.unbiased else var
            if not self.fault.stale:
                self.var[...] = old * self.var[...] + (1 - old) * kept
        return self.scale[...] * (x - mean) / jnp.sqrt(var + self.fault.eps)


class Right(nnx.Module):
    def __init__(self, fault, dtype, rngs):
        options = {"param_dtype": dtype, "rngs": rngs}
        self.linear1 = nnx.Linear(SIZE, WIDTH, **options)
        self.norm = RightNorm(fault, dtype)
        self.mixer = nnx.Param(jnp.ones((WIDTH, WIDTH), dtype))
        self.linear2 = nnx.Linear(WIDTH, 2, **options)
        self.dropout = nnx.Dropout(fault.dropout, rngs=rngs)
        self.fault = fault

    def __call__(self, x, train: bool = False):
        fault = self.fault
        x = self.norm(self.linear1(x), train)
        if fault.casts:
            x = x.astype(fault.casts).astype(x.dtype)
        x = nnx.gelu(x, approximate=fault.approximate)
        mixer = self.mixer[...]
        x = jnp.tanh(x @ (mixer if fault.transposed else mixer.T))
        if fault.stops:
            x = jax.lax.stop_gradient(x)
        if fault.flattened:
            x = x.reshape(-1, 2, 2).transpose(0, 2, 1).reshape(x.shape)
        if fault.dropout:
            x = self.dropout(x, deterministic=not train)
        if fault.overwrites and not train:
            self.norm.mean[...] += 1
        return {"logits": self.linear2(x)}


def left(dtype="float64"):
    with jax.enable_x64(dtype == "float64"):
        return eqx.nn.make_with_state(Left)(jr.key(0))


def right(dtype="float64", **fault):
    return Right(Fault(**fault), jnp.dtype(dtype), nnx.Rngs(1))


def inputs(dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, SIZE)).astype(dtype)
