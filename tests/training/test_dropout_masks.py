"""Dropout: the same masks in all backends, and new ones at every step."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import backends, build, layers
from impl_equinox import layers as equinox_layers


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropout_layers_sample_the_same_mask(p, shape, dtype):
    key = jr.key(7)
    x = jnp.ones(shape, dtype)
    with jax.enable_x64(dtype == "float64"):
        (dropout_key,) = jr.split(key, 1)
        expected = layers.dropout(x, dropout_key, p)
        flax = nnx.Dropout(p)(x, deterministic=False, rngs=nnx.Rngs(key))
        layer = equinox_layers.Dropout(p, axis_name="batch")
        equinox = jax.vmap(
            lambda x: layer(x, key=dropout_key), axis_name="batch"
        )(x)
    assert 0 < np.count_nonzero(expected) < x.size
    assert np.array_equal(flax, expected)
    assert np.array_equal(equinox, expected)


def kept(row):
    """Returns a metric: which features of an example are not 0, in binary."""
    digits = 2.0 ** np.arange(16)
    return lambda predictions, targets: jnp.dot(
        predictions[row] != 0, jnp.asarray(digits, predictions.dtype)
    )


def masks(backend, steps=3, rows=lambda x: x, **options):
    """Returns the dropout masks of some training steps with two keys.

    The head is the identity, so a prediction is 0 where a feature is dropped.
    The bias of the norm keeps all other features positive, and the learning
    rate is 0.

    Args:
        backend: what draws the masks.
        steps: how many steps with each key.
        rows: takes the examples of a process out of a batch.
        **options: for `build`.
    """
    trainer = build(
        "digits_cnn",
        backend=backend,
        channels=(1, 1),
        classes=16,
        dropout=0.5,
        optimizer=optax.sgd(0.0),
        metrics={str(row): kept(row) for row in range(8)},
        **options,
    )
    state = trainer.state()
    state.params["linear.weight"][...] = np.eye(16)
    state.params["linear.bias"][...] = 0
    state.params["norm2.bias"][...] = 100
    xs = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
    xs, ys = xs.astype(trainer.dtype), np.zeros(8, np.int32)
    metrics = []
    for advance in (0, 1):
        state.rng["key"][...] += advance
        trainer.load(state)
        metrics += [trainer.step(rows(xs), rows(ys)) for _ in range(steps)]
    numbers = [[int(step[str(row)]) for row in range(8)] for step in metrics]
    return np.asarray(numbers)[..., None] >> np.arange(16) & 1


@pytest.mark.exhaustive
def test_mixed_precision_samples_the_same_masks():
    expected = masks(backends()[0])
    for backend in backends():
        narrow = masks(backend, compute_dtype="bfloat16")
        assert np.array_equal(narrow, expected), backend


def test_models_sample_the_same_masks():
    expected, *others = map(masks, backends())
    for actual, backend in zip(others, backends()[1:], strict=True):
        assert np.array_equal(actual, expected), backend
    # About half of the features are dropped, and others at every step.
    assert abs(expected.mean() - 0.5) < 6 * 0.5 / np.sqrt(expected.size)
    steps = [mask.tobytes() for mask in expected]
    assert len(set(steps)) == len(steps)
