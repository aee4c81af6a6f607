"""Backends with planted faults, and trainers and batches for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common import Trainer, build
from common.protocol import Settings
from common.registry import find_backend, find_model
from common.training.subjects import SpecSubject

FLAX: Any = find_backend("flax")
EQUINOX: Any = find_backend("equinox")


def respec(backend: Any, **changes: Any) -> Any:
    """Returns a backend that builds a model with other hyper-parameters."""

    class Faulty(backend):
        def __init__(self, spec, *rest):
            super().__init__(dataclasses.replace(spec, **changes), *rest)

    return Faulty


class TransposedWeight(FLAX):
    def init(self, params, buffers, key):
        weight = params["linear1.weight"].T
        return super().init(params | {"linear1.weight": weight}, buffers, key)


class TransposedRule(FLAX):
    """Transposes a weight for inference only."""

    def predict(self, native, xs):
        state = self.state(native)
        weight = state.params["linear1.weight"].T
        params = {**state.params, "linear1.weight": weight}
        native = self.load(native, dataclasses.replace(state, params=params))
        return super().predict(native, xs)


class StaleState(EQUINOX):
    """Drops the updated statistics."""

    def step(self, native, batch, **options):
        new, *results = super().step(native, batch, **options)
        return new._replace(state=native.state), *results


class SkippedUpdate(EQUINOX):
    """Skips every third update of the parameters."""

    def step(self, native, batch, **options):
        new, *results = super().step(native, batch, **options)
        skip = native.step % 3 == 2
        leaves, treedef = jax.tree.flatten(new.model)
        kept = [
            jnp.where(skip, old, x) if isinstance(x, jax.Array) else x
            for old, x in zip(
                jax.tree.leaves(native.model), leaves, strict=True
            )
        ]
        return new._replace(model=jax.tree.unflatten(treedef, kept)), *results


class SharedMask(EQUINOX):
    """Samples the same dropout mask at every step."""

    def step(self, native, batch, **options):
        first = native._replace(step=jnp.zeros_like(native.step))
        new, *results = super().step(first, batch, **options)
        return new._replace(step=native.step + 1), *results


class Dialect(FLAX):
    """Debiases the running statistics at inference, as Equinox does."""

    def predict(self, native, xs):
        state = self.state(native)
        debias = jnp.where(state.step == 0, 1, 1 - 0.9**state.step)
        buffers = {k: x / debias for k, x in state.buffers.items()}
        state = dataclasses.replace(state, buffers=buffers)
        return super().predict(self.load(native, state), xs)


class OtherGradient(FLAX):
    """Trains on twice the loss."""

    def __init__(self, spec, model_class, optimizer, loss, *rest):
        def twice(predictions, targets):
            return 2 * loss(predictions, targets)

        super().__init__(spec, model_class, optimizer, twice, *rest)


class OtherOptimizer(FLAX):
    """Takes steps that are too long by a factor of 1.001."""

    def __init__(self, spec, model_class, optimizer, *rest):
        def update(updates, state, params=None):
            updates, state = optimizer.update(updates, state, params)
            return jax.tree.map(lambda x: 1.001 * x, updates), state

        longer = optax.GradientTransformation(optimizer.init, update)
        super().__init__(spec, model_class, longer, *rest)


class Overwrites(FLAX):
    """Changes a parameter during inference, as `nnx.SpectralNorm` does."""

    def predict(self, native, xs):
        predictions = super().predict(native, xs)
        kernel = native.module.linear2.kernel
        kernel[...] = 2 * kernel[...]
        return predictions


class WeakBias(EQUINOX):
    """Scales the gradient of a parameter in `zero_gradient` by 0.6."""

    def __init__(self, spec, model_class, optimizer, *rest):
        def weaken(name, g):
            return 0.6 * g if name == "spectral_linear.bias" else g

        def update(updates, state, params=None):
            updates = {name: weaken(name, g) for name, g in updates.items()}
            return optimizer.update(updates, state, params)

        faulty = optax.GradientTransformation(optimizer.init, update)
        super().__init__(spec, model_class, faulty, *rest)


class WrongGradient(EQUINOX):
    """Reports another gradient than the optimizer received."""

    def step(self, native, batch, *, gradients=False):
        if not gradients:
            return super().step(native, batch)
        native, metrics, grads = super().step(native, batch, gradients=True)
        name = "linear2.weight"
        return native, metrics, grads | {name: 1.001 * grads[name]}


def trainer(
    model: str,
    backend: Any,
    dtype: str,
    settings: Settings | None = None,
    **hyper: Any,
) -> Trainer:
    """Returns a trainer of a faulty backend."""
    sound = build(model, backend="reference", dtype=dtype, **hyper)
    model_class = find_model(backend.name, sound.spec)
    make_backend = functools.partial(backend, sound.spec, model_class)
    return Trainer(
        SpecSubject(sound.spec, make_backend, dtype),
        optimizer=sound.optimizer,
        loss=sound.backend.loss,
        metrics={},
        seed=0,
        settings=settings,
    )


def batch(model: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if model == "digits_cnn":
        xs = rng.normal(size=(8, 8, 8, 1)).astype(dtype)
        return xs, rng.integers(0, 10, 8, np.int32)
    xs = rng.normal(size=(8, 3)).astype(dtype)
    return xs, (np.sin(xs) + 1).astype(dtype)
