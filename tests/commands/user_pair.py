"""The files of a user with one model in both libraries."""

import pathlib

MODELS = """
import equinox as eqx
import jax
import jax.random as jr
from flax import nnx

class Left(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __call__(self, x):
        return jax.nn.tanh(self.norm(self.linear(x)))

class Right(nnx.Module):
    def __init__(self, names, eps):
        rngs = nnx.Rngs(0)
        self.names = names
        setattr(self, names[0], nnx.Linear(3, 4, rngs=rngs))
        setattr(self, names[1], nnx.LayerNorm(4, epsilon=eps, rngs=rngs))

    def __call__(self, x):
        linear, norm = (getattr(self, name) for name in self.names)
        return jax.nn.tanh(norm(linear(x)))

def left():
    linear = eqx.nn.Linear(3, 4, key=jr.key(0))
    return Left(linear, eqx.nn.LayerNorm(4))

def right():
    return Right(("linear", "norm"), 1e-5)

def renamed():
    return Right(("dense", "scale"), 1e-5)

def other_eps():
    return Right(("linear", "norm"), 1e-3)

class Normalized(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(x, state)

class Module(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(x)

def trained():
    model, state = eqx.nn.make_with_state(Normalized)()
    return model, state.set(model.norm.batch_counter, jax.numpy.array(3))

def number():
    return 3

def needs(size):
    return size

source = left()
"""
SHAPE = ["--inputs", "shape=5,3"]


def write(folder: pathlib.Path, name: str) -> None:
    """Writes the module `name`."""
    (folder / f"{name}.py").write_text(MODELS)
