"""Bad input: what it says, word for word, and that nothing was compiled."""

import importlib.util
import inspect
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import layers
from common.errors import (
    BackendNotInstalledError,
    BatchError,
    HyperParameterError,
    ModelNotFoundError,
)
from common.layers.table import BatchNorm
from common.models import checks as models
from common.models.stateful_mlp import StatefulMLP
from common.training import losses
from common.training.building import build
from impl_equinox import layers as equinox_layers
from impl_flax import layers as flax_layers

FORM = re.compile(
    r"(?P<what>.+?): got (?P<got>.+?), expected (?P<expected>.+?)\. "
    r"(?P<fix>[A-Z].+)\.",
    re.DOTALL,
)


@pytest.fixture
def refuses(compiles):
    """Calls what must fail: with these words, and before any compilation."""

    def refuses(call, error, message):
        with compiles() as compiled, pytest.raises(error) as caught:
            call()
        text = str(caught.value)
        assert re.fullmatch(message, text), text
        assert FORM.fullmatch(text), text
        assert compiled == []

    return refuses


# --- build ------------------------------------------------------------------

SPECS = "'stateful_mlp', 'digits_cnn', 'deep_mlp'"
BUILD = {
    "no_backend": (
        {},
        ValueError,
        r"backend: got None, expected one of 'reference', 'equinox', "
        r"'flax'\. Pick one of these\.",
    ),
    "backend": (
        {"backend": "torch"},
        ValueError,
        r"backend: got 'torch', expected one of 'reference', 'equinox', "
        r"'flax'\. Pick one of these\.",
    ),
    "spec": (
        {"spec": "resnet", "backend": "flax"},
        ValueError,
        rf"spec: got 'resnet', expected one of {SPECS}\. "
        r"Pick one of these\.",
    ),
    "loss": (
        {"loss": "hinge", "backend": "flax"},
        ValueError,
        r"loss: got 'hinge', expected one of 'mse', 'cross_entropy'\. "
        r"Pick one of these\.",
    ),
    "metric": (
        {"metrics": ("f1",), "backend": "flax"},
        ValueError,
        r"metric: got 'f1', expected one of 'accuracy', 'mse', "
        r"'cross_entropy'\. Pick one of these\.",
    ),
    "dtype": (
        {"dtype": "bfloat16", "backend": "flax"},
        ValueError,
        r"dtype: got 'bfloat16', expected one of 'float32', 'float64'\. "
        r"Pick one of these\.",
    ),
    "metric_of_a_name": (
        {"metrics": {"m": "f1"}, "backend": "flax"},
        ValueError,
        r"metric: got 'f1', expected one of 'accuracy', 'mse', "
        r"'cross_entropy'\. Pick one of these\.",
    ),
    "metric_called_loss": (
        {"metrics": {"loss": "mse"}, "backend": "flax"},
        ValueError,
        r"metric name: got 'loss', expected another: the loss itself goes by "
        r"it\. Rename the metric\.",
    ),
    "dtype_of_numpy": (
        {"dtype": np.int32, "backend": "flax"},
        ValueError,
        r"dtype: got 'int32', expected one of 'float32', 'float64'\. "
        r"Pick one of these\.",
    ),
    "negative_seed": (
        {"seed": -1, "backend": "flax"},
        ValueError,
        r"seed: got -1, expected an int from 0 to 4294967295\. Pick one of "
        r"these\.",
    ),
    "huge_seed": (
        {"seed": 2**32, "backend": "flax"},
        ValueError,
        r"seed: got 4294967296, expected an int from 0 to 4294967295\. Pick "
        r"one of these\.",
    ),
    "fractional_seed": (
        {"seed": 0.5, "backend": "flax"},
        ValueError,
        r"seed: got 0\.5, expected an int from 0 to 4294967295\. Pick one of "
        r"these\.",
    ),
    "hyper_parameter": (
        {"backend": "flax", "width": 3},
        HyperParameterError,
        r"stateful_mlp hyper-parameter: got 'width', expected one of "
        r"'in_size', 'hidden_size', 'out_size', 'batch_norm', 'momentum', "
        r"'eps'\. Remove or rename it\.",
    ),
    "size": (
        {"backend": "flax", "hidden_size": 0},
        ValueError,
        r"stateful_mlp hidden_size: got 0, expected a positive value\. "
        r"Raise it\.",
    ),
    "sizes": (
        {"spec": "digits_cnn", "backend": "flax", "channels": (4, -1)},
        ValueError,
        r"digits_cnn channels: got \(4, -1\), expected a positive value\. "
        r"Raise it\.",
    ),
    "momentum": (
        {"backend": "flax", "momentum": 1.0},
        ValueError,
        r"stateful_mlp momentum: got 1\.0, expected a value in \[0, 1\)\. "
        r"Move it into this range\.",
    ),
    "dropout": (
        {"spec": "digits_cnn", "backend": "flax", "dropout": -0.1},
        ValueError,
        r"digits_cnn dropout: got -0\.1, expected a value in \[0, 1\)\. "
        r"Move it into this range\.",
    ),
    "gradients of each example": (
        {
            "spec": "deep_mlp",
            "backend": "flax",
            "optimizer": optax.contrib.differentially_private_aggregate(
                1.0, 0.1, key=jax.random.key(0)
            ),
        },
        ValueError,
        r"optimizer update of '.+': got shape \(.*\), expected \(.*\)\. The "
        r"optimizer receives one gradient for the whole batch; use one that "
        r"does not expect a gradient for each example\.",
    ),
    "optimizer of another tree": (
        {
            "backend": "flax",
            "optimizer": optax.masked(
                optax.sgd(0.1), lambda params: {"linear1": True}
            ),
        },
        ValueError,
        r"optimizer: got ValueError \((.|\n)*\) from its `init` or `update`, "
        r"expected it to accept gradients, state and parameters as flat dicts "
        r"by canonical name, and the extra arguments `value`, `grad` and "
        r"`value_fn`\. Masks and labels must be functions of such a dict\.",
    ),
}


@pytest.mark.parametrize("fault", BUILD)
def test_build(fault, refuses):
    arguments, error, message = BUILD[fault]
    refuses(lambda: build(**arguments), error, message)


def test_what_build_takes_too(make_batch):
    """A NumPy dtype, seed and size, one metric by name, and names in a dict.

    A loss need not be hashable.
    """

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


class Mine(StatefulMLP):
    name = "mine"


class Another(StatefulMLP):
    """Another class under a name that is taken."""


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_a_spec_without_a_model(backend, refuses):
    refuses(
        lambda: build(Mine(), backend=backend),
        ModelNotFoundError,
        rf"model of 'mine' in {backend}: got no module "
        rf"impl_{backend}\.models\.mine, expected one that defines the "
        r"class Mine\. CONTRIBUTING\.md describes how to add a model\.",
    )
    refuses(
        lambda: build(Another(), backend=backend),
        ModelNotFoundError,
        rf"model of 'stateful_mlp' in {backend}: got no class Another in "
        rf"impl_{backend}\.models\.stateful_mlp, expected one\. "
        r"CONTRIBUTING\.md describes how to add a model\.",
    )


class Sizes:
    """Stands in for a spec: any value, where beartype does not look."""

    name = "sizes"

    def __init__(self, size):
        self.size = size


NOT_INTS = ["32", 3.5, True, np.int64(3), None, (3,)]
NOT_TUPLES = [16, "ab", [1, 2], (1.0, 2), (16,), (1, 2, 3)]
NOT_NUMBERS = ["0.9", None, [0.5]]


@pytest.mark.parametrize("value", NOT_INTS)
def test_an_int(value, refuses):
    refuses(
        lambda: untyped(models.require_int)(Sizes(value), "size"),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected an int\. Pass "
        r"a whole number\.",
    )


@pytest.mark.parametrize("value", NOT_TUPLES)
def test_a_tuple_of_ints(value, refuses):
    refuses(
        lambda: untyped(models.require_ints)(Sizes(value), "size", length=2),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected a tuple of 2 "
        r"ints\. Pass whole numbers\.",
    )


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_a_number(value, refuses):
    refuses(
        lambda: untyped(models.require_within)(Sizes(value), "size", 0, 1),
        ValueError,
        rf"sizes size: got {re.escape(repr(value))}, expected a value in "
        r"\[0, 1\)\. Move it into this range\.",
    )


def test_a_positive_number(refuses):
    refuses(
        lambda: untyped(models.require_positive)(Sizes("1"), "size"),
        ValueError,
        r"sizes size: got '1', expected a positive value\. Raise it\.",
    )


def test_good_sizes_pass():
    untyped(models.require_int)(Sizes(3), "size")
    untyped(models.require_ints)(Sizes((1, 2, 3)), "size")


def untyped(function):
    """What beartype wraps, if it does."""
    return inspect.unwrap(function)


@pytest.mark.parametrize(
    ("backend", "requirement"),
    [
        ("reference", "jax"),
        ("equinox", "equinox>=0.13.8,<0.14"),
        ("flax", "flax>=0.12.8,<0.12.9"),
        ("nnx", "flax>=0.12.8,<0.12.9"),
    ],
)
def test_a_library_that_is_not_installed(
    backend, requirement, refuses, monkeypatch
):
    name = "flax" if backend == "nnx" else backend
    library = "jax" if backend == "reference" else name
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = re.escape(requirement)
    refuses(
        lambda: build(backend=backend),
        BackendNotInstalledError,
        rf"backend '{name}': got no module named '{library}', expected "
        rf'{wanted}\. Run `pip install "{wanted}"`\.',
    )


def test_only_the_backend_in_question_must_be_installed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "flax" else real(name, *rest),
    )
    assert build(backend="equinox").backend.name == "equinox"
    assert issubclass(BackendNotInstalledError, ImportError)


def test_float64_without_x64(backend, refuses):
    with jax.enable_x64(False):
        refuses(
            lambda: build(backend=backend, dtype="float64"),
            ValueError,
            r"dtype: got 'float64' while x64 is off, expected x64 to be on\. "
            r'Call `jax\.config\.update\("jax_enable_x64", True\)` first\.',
        )


def test_float32_with_and_without_x64(backend, make):
    for x64 in (True, False):
        with jax.enable_x64(x64):
            state = make("deep_mlp", backend, dtype="float32").state()
        assert state.params["head.weight"].dtype == "float32"


def test_threefry_that_cannot_be_partitioned(backend, refuses):
    with jax.threefry_partitionable(False):
        refuses(
            lambda: build(backend=backend),
            ValueError,
            r"jax_threefry_partitionable: got False, expected True: the "
            r"libraries' random numbers differ otherwise\. Call "
            r'`jax\.config\.update\("jax_threefry_partitionable", True\)`\.',
        )


# --- batches ----------------------------------------------------------------

GOOD = np.zeros((4, 3), np.float32)
IMAGES = np.zeros((4, 8, 8, 1), np.float32)
LABELS = np.zeros(4, np.int32)

INPUTS = {
    "rank": (
        "stateful_mlp",
        np.zeros((4, 1, 3), np.float32),
        r"inputs: got shape \(4, 1, 3\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape them, or set the sizes in `build`\.",
    ),
    "one_example": (
        "stateful_mlp",
        np.zeros(3, np.float32),
        r"inputs: got shape \(3,\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape them, or set the sizes in `build`\.",
    ),
    "features": (
        "stateful_mlp",
        np.zeros((4, 5), np.float32),
        r"inputs: got shape \(4, 5\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape them, or set the sizes in `build`\.",
    ),
    "channels_first": (
        "digits_cnn",
        np.zeros((4, 1, 8, 8), np.float32),
        r"inputs: got shape \(4, 1, 8, 8\), expected \(B, 8, 8, 1\) \(batch "
        r"first, channels last\)\. Reshape them, or set the sizes in "
        r"`build`\.",
    ),
    "dtype": (
        "stateful_mlp",
        np.zeros((4, 3), np.float64),
        r"inputs: got dtype float64, expected float32\. Cast them with "
        r'`\.astype\("float32"\)`, or pass another `dtype` to `build`\.',
    ),
    "integers": (
        "stateful_mlp",
        np.zeros((4, 3), np.int32),
        r"inputs: got dtype int32, expected float32\. Cast them with "
        r'`\.astype\("float32"\)`, or pass another `dtype` to `build`\.',
    ),
    "no_array": (
        "stateful_mlp",
        1.0,
        r"inputs: got float, expected an array\. Wrap it in `jnp\.asarray`\.",
    ),
    "a_list": (
        "stateful_mlp",
        [GOOD],
        r"inputs: got list, expected an array\. Wrap it in `jnp\.asarray`\.",
    ),
    "none": (
        "stateful_mlp",
        None,
        r"inputs: got NoneType, expected an array\. Wrap it in "
        r"`jnp\.asarray`\.",
    ),
}
TARGETS = {
    "length": (
        "stateful_mlp",
        GOOD,
        GOOD[:3],
        r"targets: got shape \(3, 3\), expected one for each of the 4 "
        r"inputs\. Pass as many targets as inputs\.",
    ),
    "scalar": (
        "stateful_mlp",
        GOOD,
        np.float32(0),
        r"targets: got shape \(\), expected one for each of the 4 "
        r"inputs\. Pass as many targets as inputs\.",
    ),
    "no_array": (
        "stateful_mlp",
        GOOD,
        "abcd",
        r"targets: got str, expected an array\. Wrap it in `jnp\.asarray`\.",
    ),
    "none": (
        "stateful_mlp",
        GOOD,
        None,
        r"targets: got NoneType, expected an array\. Wrap it in "
        r"`jnp\.asarray`\.",
    ),
    "a_list": (
        "stateful_mlp",
        GOOD,
        GOOD.tolist(),
        r"targets: got list, expected an array\. Wrap it in `jnp\.asarray`\.",
    ),
    "a_dict": (
        "digits_cnn",
        IMAGES,
        {"labels": LABELS},
        r"targets: got dict, expected an array\. Wrap it in `jnp\.asarray`\.",
    ),
    "features": (
        "stateful_mlp",
        GOOD,
        GOOD[:, :1],
        r"targets: got float32\(4, 1\), expected float32\(4, 3\) like the "
        r"predictions\. Reshape or cast the targets\.",
    ),
    "dtype": (
        "stateful_mlp",
        GOOD,
        GOOD.astype(np.float64),
        r"targets: got float64\(4, 3\), expected float32\(4, 3\) like the "
        r"predictions\. Reshape or cast the targets\.",
    ),
    "float_labels": (
        "digits_cnn",
        IMAGES,
        LABELS.astype(np.float32),
        r"targets: got float32\(4,\), expected integer labels of shape "
        r"\(4,\)\. Pass class indices\.",
    ),
    "one_hot_labels": (
        "digits_cnn",
        IMAGES,
        np.zeros((4, 10), np.int32),
        r"targets: got int32\(4, 10\), expected integer labels of shape "
        r"\(4,\)\. Pass class indices\.",
    ),
}
VERBS = ("step", "evaluate", "fit")


def call(trainer, verb, xs, ys):
    """Calls a method that takes a batch."""
    if verb == "predict":
        return trainer.predict(xs)
    if verb == "fit":
        return trainer.fit(xs, ys, batch_size=2)
    return getattr(trainer, verb)(xs, ys)


@pytest.mark.parametrize("verb", [*VERBS, "predict"])
@pytest.mark.parametrize("fault", INPUTS)
def test_inputs(fault, verb, refuses):
    model, xs, message = INPUTS[fault]
    trainer = build(model, backend="reference")
    ys = GOOD if model == "stateful_mlp" else LABELS
    refuses(lambda: call(trainer, verb, xs, ys), BatchError, message)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", TARGETS)
def test_targets(fault, verb, refuses):
    model, xs, ys, message = TARGETS[fault]
    trainer = build(model, backend="reference")
    refuses(lambda: call(trainer, verb, xs, ys), BatchError, message)


def test_a_bad_batch_changes_nothing(backend, refuses, assert_same):
    trainer = build(backend=backend)
    before = trainer.state()
    for verb in ("step", "fit"):
        refuses(
            lambda verb=verb: call(trainer, verb, GOOD[:, :2], GOOD),
            BatchError,
            r"inputs: got shape \(4, 2\), expected \(B, 3\) \(batch first, "
            r"channels last\)\. Reshape them, or set the sizes in `build`\.",
        )
    assert_same(trainer.state(), before)


def test_a_batch_is_checked_again_after_a_good_one(refuses, make, make_batch):
    trainer = make("deep_mlp", "reference")
    xs, ys = make_batch(trainer.spec, size=4)
    trainer.step(xs, ys)
    refuses(
        lambda: trainer.step(xs, ys[:3]),
        BatchError,
        r"targets: got shape \(3, 3\), expected one for each of the 4 "
        r"inputs\. Pass as many targets as inputs\.",
    )


ONE = (
    r"batch: got 1 example\(s\), expected at least 2 to train "
    r"'{model}', whose BatchNorm has no variance otherwise\. Use a larger "
    r"batch\."
)


@pytest.mark.parametrize("model", ["stateful_mlp", "deep_mlp"])
def test_a_batch_of_one_cannot_train(model, make, make_batch, refuses):
    trainer = make(model, "reference")
    xs, ys = make_batch(trainer.spec, size=1)
    message = ONE.format(model=model)
    refuses(lambda: trainer.step(xs, ys), BatchError, message)
    refuses(lambda: trainer.fit(xs, ys, batch_size=1), BatchError, message)


def test_a_batch_of_one_may_be_evaluated(model, make, make_batch):
    trainer = make(model, "reference")
    xs, ys = make_batch(trainer.spec, size=1)
    assert np.isfinite(trainer.evaluate(xs, ys)["loss"])


def test_a_batch_of_one_trains_where_it_has_a_variance(make, make_batch):
    """An image has 64 places to take statistics over."""
    trainer = make("digits_cnn", "reference")
    assert np.isfinite(trainer.step(*make_batch(trainer.spec, size=1))["loss"])


FIT: dict[str, tuple[dict[str, Any], str]] = {
    "batch_size_0": (
        {"batch_size": 0},
        r"batch_size: got 0, expected a value from 2 to 4, the number of "
        r"examples\. Change it\.",
    ),
    "batch_size_1": (
        {"batch_size": 1},
        r"batch_size: got 1, expected a value from 2 to 4, the number of "
        r"examples\. Change it\.",
    ),
    "batch_size_5": (
        {"batch_size": 5},
        r"batch_size: got 5, expected a value from 2 to 4, the number of "
        r"examples\. Change it\.",
    ),
    "epochs": (
        {"epochs": -1, "batch_size": 2},
        r"epochs: got -1, expected 0 or more\. Change it\.",
    ),
}


@pytest.mark.parametrize("fault", FIT)
def test_fit(fault, refuses):
    options, message = FIT[fault]
    trainer = build(backend="reference")
    refuses(lambda: trainer.fit(GOOD, GOOD, **options), BatchError, message)


def each(predictions, targets):
    return jnp.mean((predictions - targets) ** 2, 0)


def count(predictions, targets):
    return jnp.sum(predictions > targets)


def fails(predictions, targets):
    return targets["labels"]


FAILS = (
    r": got TypeError\(.+\), expected a scalar of predictions "
    r"float32\(4, 3\) and targets float32\(4, 3\)\. Mend the function or the "
    r"targets\."
)
FUNCTIONS = {
    "loss": (
        {"loss": each},
        r"loss: got float32\(3,\), expected a floating scalar\. Average over "
        r"the batch\.",
    ),
    "integer_loss": (
        {"loss": count},
        r"loss: got int\d\d\(\), expected a floating scalar\. Average over "
        r"the batch\.",
    ),
    "failing_loss": ({"loss": fails}, "loss" + FAILS),
    "metric": (
        {"metrics": {"m": each}},
        r"metric 'm': got float32\(3,\), expected a scalar\. Average over "
        r"the batch\.",
    ),
    "failing_metric": ({"metrics": {"m": fails}}, "metric 'm'" + FAILS),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", FUNCTIONS)
def test_a_loss_or_a_metric_that_is_no_scalar(fault, verb, refuses):
    options, message = FUNCTIONS[fault]
    trainer = build(backend="reference", **options)
    refuses(lambda: call(trainer, verb, GOOD, GOOD), BatchError, message)


def test_a_metric_may_count(make, make_batch):
    trainer = make("deep_mlp", "reference", metrics={"more": count})
    xs, ys = make_batch(trainer.spec)
    assert 0 <= trainer.evaluate(xs, ys)["more"] <= ys.size


# --- within a step ----------------------------------------------------------


def test_a_step_that_changes_a_dtype(backend, make, make_batch, refuses):
    """An optimizer that counts in float, from a count in int."""
    counting = optax.GradientTransformation(
        lambda params: {"count": jnp.int32(0)},
        lambda updates, state, params=None: (
            updates,
            {"count": state["count"] + jnp.float32(1)},
        ),
    )
    trainer = make("deep_mlp", backend, optimizer=counting)
    xs, ys = make_batch(trainer.spec)
    refuses(
        lambda: trainer.step(xs, ys),
        TypeError,
        r"leaf .*count.* after a step: got float32\(\), expected "
        r"int32\(\)\. Keep the dtype in the loss and the optimizer\.",
    )


def test_layer_norm_of_a_batch(refuses):
    layer = equinox_layers.LayerNorm(3)
    batch = jnp.ones((4, 3))
    refuses(
        lambda: layer(batch),
        ValueError,
        r"LayerNorm example: got shape \(4, 3\), expected \(3,\)\. Map over "
        r"further axes with `jax\.vmap`\.",
    )


def test_mask_in_a_dialect_that_has_none(refuses):
    refuses(
        lambda: BatchNorm(dialect="ema", masked=True),
        ValueError,
        r"masked batch_norm dialect: got 'ema', expected one of 'standard', "
        r"'torch'\. Leave the mask out: Equinox's modes have none\.",
    )


def test_dropout_without_a_key(refuses):
    layer = equinox_layers.Dropout(0.5, axis_name="batch")
    refuses(
        lambda: layer(jnp.ones(3)),
        RuntimeError,
        r"Dropout key: got None, expected a PRNG key when not in inference "
        r"mode\. Pass `key=`, or use `eqx\.nn\.inference_mode\(model\)`\.",
    )


WINDOWS = {
    "padding_name": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), padding="HALF"),
        r"padding: got 'HALF', expected one of \('SAME', 'SAME_LOWER', "
        r"'VALID', 'CAUSAL'\), a number or numbers\. Correct the name\.",
    ),
    "padding_axes": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), padding=(0, 1)),
        r"padding: got \(0, 1\), expected 1 entries\. Give one for each "
        r"axis of the window\.",
    ),
    "stride_axes": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), stride=(2, 2)),
        r"spatial axes: got 2 values \(2, 2\), expected 1\. Give one for "
        r"each axis of the kernel\.",
    ),
    "adaptive_target": (
        lambda: layers.adaptive_avg_pool(jnp.ones((1, 2, 1)), (3,)),
        r"adaptive_pool target_shape: got \(3,\), expected at most "
        r"\(2,\)\. Lower it\.",
    ),
    "output_padding": (
        lambda: flax_layers.ConvTranspose(
            1, 1, (2,), 2, output_padding=2, rngs=nnx.Rngs(0)
        ),
        r"ConvTranspose output_padding: got \(2,\), expected less than the "
        r"strides \(2,\)\. Lower it\.",
    ),
    "circular": (
        lambda: flax_layers.ConvTranspose(
            1, 1, (2,), padding_mode="CIRCULAR", rngs=nnx.Rngs(0)
        ),
        r"ConvTranspose circular padding: got 0 with output_padding \(0,\), "
        r"expected 'SAME' or 'SAME_LOWER' without\. Take "
        r"padding_mode='ZEROS'\.",
    ),
}


@pytest.mark.parametrize("fault", WINDOWS)
def test_windows_that_do_not_fit(fault):
    call, message = WINDOWS[fault]
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        call()
    assert FORM.fullmatch(str(caught.value))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "message"),
    [
        (4, 3, 8, "num_kv_heads: got 3, expected a divisor of num_heads=4"),
        (4, 2, 9, "query_size: got 9, expected a multiple of num_heads=4"),
    ],
)
def test_heads_that_do_not_divide(heads, kv_heads, size, message):
    with pytest.raises(ValueError, match=message):
        equinox_layers.GroupedQueryAttention(
            heads, kv_heads, size, key=jax.random.key(0)
        )


UNTYPED = """
from common.training.building import build
from flax import nnx
from impl_flax.layers import BatchNorm

for call in (
    lambda: build(backend="flax", batch_norm="layer"),
    lambda: BatchNorm(3, mode="standard", rngs=nnx.Rngs(0)),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def test_what_beartype_would_say_first_is_said_without_it():
    done = subprocess.run(
        [sys.executable, "-c", UNTYPED],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "stateful_mlp batch_norm: got 'layer', expected one of 'ema', "
        "'batch', 'standard', 'torch'. Pick one of these.",
        "BatchNorm mode: got 'standard', expected 'ema', 'batch' or "
        "'torch'. Use nnx.BatchNorm for the standard one.",
    ]
