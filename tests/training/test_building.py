"""Bad arguments of `build`, and the less common good ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.training import losses
from common.training.building import build

# `choose` says what to do, and has tests of its own.
SPECS = "'stateful_mlp', 'digits_cnn', 'deep_mlp'"
SEED_FIX = r"\. Pass an integer in this range, such as 0\."
BUILD = {
    "no_backend": (
        {},
        ValueError,
        r"backend: got None, expected one of 'reference', 'equinox', "
        r"'flax'\. [A-Z].+\.",
    ),
    "backend": (
        {"backend": "torch"},
        ValueError,
        r"backend: got 'torch', expected one of 'reference', 'equinox', "
        r"'flax'\. [A-Z].+\.",
    ),
    "spec": (
        {"spec": "resnet", "backend": "flax"},
        ValueError,
        rf"spec: got 'resnet', expected one of {SPECS}\. "
        r"[A-Z].+\.",
    ),
    "loss": (
        {"loss": "hinge", "backend": "flax"},
        ValueError,
        r"loss: got 'hinge', expected one of 'mse', 'cross_entropy'\. "
        r"[A-Z].+\.",
    ),
    "metric": (
        {"metrics": ("f1",), "backend": "flax"},
        ValueError,
        r"metric: got 'f1', expected one of 'accuracy', 'mse', "
        r"'cross_entropy'\. [A-Z].+\.",
    ),
    "dtype": (
        {"dtype": "bfloat16", "backend": "flax"},
        ValueError,
        r"dtype: got 'bfloat16', expected one of 'float32', 'float64'\. "
        r"[A-Z].+\.",
    ),
    "metric_of_a_name": (
        {"metrics": {"m": "f1"}, "backend": "flax"},
        ValueError,
        r"metric: got 'f1', expected one of 'accuracy', 'mse', "
        r"'cross_entropy'\. [A-Z].+\.",
    ),
    "metric_called_loss": (
        {"metrics": {"loss": "mse"}, "backend": "flax"},
        ValueError,
        r"metric name: got 'loss', expected another name, because the loss "
        r"itself is reported as 'loss'\. Leave it out, or call the "
        r"metric otherwise, such as 'error'\.",
    ),
    "dtype_of_numpy": (
        {"dtype": np.int32, "backend": "flax"},
        ValueError,
        r"dtype: got 'int32', expected one of 'float32', 'float64'\. "
        r"[A-Z].+\.",
    ),
    "negative_seed": (
        {"seed": -1, "backend": "flax"},
        ValueError,
        r"seed: got -1, expected an int from 0 to 4294967295" + SEED_FIX,
    ),
    "huge_seed": (
        {"seed": 2**32, "backend": "flax"},
        ValueError,
        r"seed: got 4294967296, expected an int from 0 to 4294967295"
        + SEED_FIX,
    ),
    "fractional_seed": (
        {"seed": 0.5, "backend": "flax"},
        ValueError,
        r"seed: got 0\.5, expected an int from 0 to 4294967295" + SEED_FIX,
    ),
}


@pytest.mark.parametrize("fault", BUILD)
def test_bad_arguments(fault, assert_raises):
    arguments, error, message = BUILD[fault]
    assert_raises(lambda: build(**arguments), error, message)


def test_arguments_of_other_types(make_batch):
    """NumPy dtypes and integers, one metric, and a loss without a hash."""

    class Loss:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, predictions, targets):
            return losses.mse(predictions, targets)

    trainer = build(
        backend="reference",
        dtype=jnp.float32,
        seed=np.int64(3),
        hidden_size=np.int64(4),
        metrics="mse",
        loss=Loss(),
    )
    assert (trainer.dtype, trainer.seed) == ("float32", 3)
    assert type(trainer.seed) is int
    assert type(vars(trainer.spec)["hidden_size"]) is int
    batch = make_batch(trainer.spec, dtype="float32")
    found = trainer.evaluate(*batch)
    assert found["loss"] == found["mse"]
    named = build(backend="reference", metrics={"m": "mse"})
    assert named.evaluate(*batch).keys() == {"loss", "m"}


def test_float64_needs_x64(backend, assert_raises):
    with jax.enable_x64(False):
        assert_raises(
            lambda: build(backend=backend, dtype="float64"),
            ValueError,
            r"dtype: got 'float64' while x64 is off, expected x64 to be on\. "
            r'Call `jax\.config\.update\("jax_enable_x64", True\)` first\.',
        )


def test_float32_is_float32_with_and_without_x64(backend, make):
    for x64 in (True, False):
        with jax.enable_x64(x64):
            state = make("deep_mlp", backend, dtype="float32").state()
        assert state.params["head.weight"].dtype == "float32"


def test_partitionable_threefry_is_required(backend, assert_raises):
    with jax.threefry_partitionable(False):
        assert_raises(
            lambda: build(backend=backend),
            ValueError,
            r"jax_threefry_partitionable: got False, expected True, because "
            r"the libraries draw different random numbers without it\. Call "
            r'`jax\.config\.update\("jax_threefry_partitionable", True\)`\.',
        )
