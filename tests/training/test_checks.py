"""Bad batches, settings, losses and metrics."""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import BatchError
from common.training import checks
from common.training.building import build

# --- batches ----------------------------------------------------------------

GOOD = np.zeros((4, 3), np.float32)
IMAGES = np.zeros((4, 8, 8, 1), np.float32)
LABELS = np.zeros(4, np.int32)

INPUTS = {
    "rank": (
        "stateful_mlp",
        np.zeros((4, 1, 3), np.float32),
        r"inputs: got shape \(4, 1, 3\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape the inputs, or pass other sizes to "
        r"`build`\.",
    ),
    "one_example": (
        "stateful_mlp",
        np.zeros(3, np.float32),
        r"inputs: got shape \(3,\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape the inputs, or pass other sizes to "
        r"`build`\.",
    ),
    "features": (
        "stateful_mlp",
        np.zeros((4, 5), np.float32),
        r"inputs: got shape \(4, 5\), expected \(B, 3\) \(batch first, "
        r"channels last\)\. Reshape the inputs, or pass other sizes to "
        r"`build`\.",
    ),
    "channels_first": (
        "digits_cnn",
        np.zeros((4, 1, 8, 8), np.float32),
        r"inputs: got shape \(4, 1, 8, 8\), expected \(B, 8, 8, 1\) \(batch "
        r"first, channels last\)\. Reshape the inputs, or pass other sizes "
        r"to `build`\.",
    ),
    "dtype": (
        "stateful_mlp",
        np.zeros((4, 3), np.float64),
        r"inputs: got dtype float64, expected float32\. Cast the inputs with "
        r'`\.astype\("float32"\)`, or pass another `dtype` to `build`\.',
    ),
    "integers": (
        "stateful_mlp",
        np.zeros((4, 3), np.int32),
        r"inputs: got dtype int32, expected float32\. Cast the inputs with "
        r'`\.astype\("float32"\)`, or pass another `dtype` to `build`\.',
    ),
    "no_array": (
        "stateful_mlp",
        1.0,
        r"inputs: got float, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
    ),
    "a_list": (
        "stateful_mlp",
        [GOOD],
        r"inputs: got list, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
    ),
    "none": (
        "stateful_mlp",
        None,
        r"inputs: got NoneType, expected an array\. Convert it "
        r"with `jnp\.asarray`\.",
    ),
}
TARGETS = {
    "length": (
        "stateful_mlp",
        GOOD,
        GOOD[:3],
        r"targets: got shape \(3, 3\), expected one for each of the 4 "
        r"inputs\. Pass one target for each input\.",
    ),
    "scalar": (
        "stateful_mlp",
        GOOD,
        np.float32(0),
        r"targets: got shape \(\), expected one for each of the 4 "
        r"inputs\. Pass one target for each input\.",
    ),
    "no_array": (
        "stateful_mlp",
        GOOD,
        "abcd",
        r"targets: got str, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
    ),
    "none": (
        "stateful_mlp",
        GOOD,
        None,
        r"targets: got NoneType, expected an array\. Convert it "
        r"with `jnp\.asarray`\.",
    ),
    "a_list": (
        "stateful_mlp",
        GOOD,
        GOOD.tolist(),
        r"targets: got list, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
    ),
    "a_dict": (
        "digits_cnn",
        IMAGES,
        {"labels": LABELS},
        r"targets: got dict, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
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
        r"\(4,\)\. Pass class indices, not one-hot vectors\.",
    ),
    "one_hot_labels": (
        "digits_cnn",
        IMAGES,
        np.zeros((4, 10), np.int32),
        r"targets: got int32\(4, 10\), expected integer labels of shape "
        r"\(4,\)\. Pass class indices, not one-hot vectors\.",
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
def test_bad_inputs(fault, verb, assert_raises):
    model, xs, message = INPUTS[fault]
    trainer = build(model, backend="reference")
    ys = GOOD if model == "stateful_mlp" else LABELS
    assert_raises(lambda: call(trainer, verb, xs, ys), BatchError, message)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", TARGETS)
def test_bad_targets(fault, verb, assert_raises):
    model, xs, ys, message = TARGETS[fault]
    trainer = build(model, backend="reference")
    assert_raises(lambda: call(trainer, verb, xs, ys), BatchError, message)


def test_a_bad_batch_does_not_change_the_trainer(
    backend, assert_raises, assert_same
):
    trainer = build(backend=backend)
    before = trainer.state()
    for verb in ("step", "fit"):
        assert_raises(
            lambda verb=verb: call(trainer, verb, GOOD[:, :2], GOOD),
            BatchError,
            r"inputs: got shape \(4, 2\), expected \(B, 3\) \(batch first, "
            r"channels last\)\. Reshape the inputs, or pass other sizes to "
            r"`build`\.",
        )
    assert_same(trainer.state(), before)


def test_a_bad_batch_after_a_good_one_is_found(
    assert_raises, make, make_batch
):
    trainer = make("deep_mlp", "reference")
    xs, ys = make_batch(trainer.spec, size=4)
    trainer.step(xs, ys)
    assert_raises(
        lambda: trainer.step(xs, ys[:3]),
        BatchError,
        r"targets: got shape \(3, 3\), expected one for each of the 4 "
        r"inputs\. Pass one target for each input\.",
    )


ONE = (
    r"batch: got 1 example\(s\), expected at least 2 to train "
    r"'{model}', because its BatchNorm needs a batch variance\. Use a larger "
    r"batch\."
)


@pytest.mark.parametrize("model", ["stateful_mlp", "deep_mlp"])
def test_batch_norm_cannot_train_on_one_example(
    model, make, make_batch, assert_raises
):
    trainer = make(model, "reference")
    xs, ys = make_batch(trainer.spec, size=1)
    message = ONE.format(model=model)
    assert_raises(lambda: trainer.step(xs, ys), BatchError, message)
    assert_raises(
        lambda: trainer.fit(xs, ys, batch_size=1), BatchError, message
    )


def test_one_example_can_be_evaluated(model, make, make_batch):
    trainer = make(model, "reference")
    xs, ys = make_batch(trainer.spec, size=1)
    assert np.isfinite(trainer.evaluate(xs, ys)["loss"])


def test_one_image_can_be_trained_on(make, make_batch):
    """Its statistics are over 64 pixels."""
    trainer = make("digits_cnn", "reference")
    assert np.isfinite(trainer.step(*make_batch(trainer.spec, size=1))["loss"])


FIT: dict[str, tuple[dict[str, Any], str]] = {
    "batch_size_0": (
        {"batch_size": 0},
        r"batch_size: got 0, expected a value from 2 to 4, the number of "
        r"examples\. Pass a `batch_size` in this range, or more examples\.",
    ),
    "batch_size_1": (
        {"batch_size": 1},
        r"batch_size: got 1, expected a value from 2 to 4, the number of "
        r"examples\. Pass a `batch_size` in this range, or more examples\.",
    ),
    "batch_size_5": (
        {"batch_size": 5},
        r"batch_size: got 5, expected a value from 2 to 4, the number of "
        r"examples\. Pass a `batch_size` in this range, or more examples\.",
    ),
    "epochs": (
        {"epochs": -1, "batch_size": 2},
        r"epochs: got -1, expected 0 or more\. Pass the number of epochs to "
        r"complete\.",
    ),
}


@pytest.mark.parametrize("fault", FIT)
def test_bad_settings_of_fit(fault, assert_raises):
    options, message = FIT[fault]
    trainer = build(backend="reference")
    assert_raises(
        lambda: trainer.fit(GOOD, GOOD, **options), BatchError, message
    )


def each(predictions, targets):
    return jnp.mean((predictions - targets) ** 2, 0)


def count(predictions, targets):
    return jnp.sum(predictions > targets)


def fails(predictions, targets):
    return targets["labels"]


FAILS = (
    r": got TypeError\(.+\), expected a scalar for predictions "
    r"float32\(4, 3\) and targets float32\(4, 3\)\. Correct the function, or "
    r"pass the targets that it needs\."
)
FUNCTIONS = {
    "loss": (
        {"loss": each},
        r"loss: got float32\(3,\), expected a floating scalar\. Reduce it "
        r"to one number, for example with `jnp\.mean`\.",
    ),
    "integer_loss": (
        {"loss": count},
        r"loss: got int\d\d\(\), expected a floating scalar\. Return one "
        r"array of shape \(\) with that dtype\.",
    ),
    "failing_loss": ({"loss": fails}, "loss" + FAILS),
    "metric": (
        {"metrics": {"m": each}},
        r"metric 'm': got float32\(3,\), expected a scalar\. Reduce it to one "
        r"number, for example with `jnp\.mean`\.",
    ),
    "failing_metric": ({"metrics": {"m": fails}}, "metric 'm'" + FAILS),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", FUNCTIONS)
def test_a_loss_or_metric_must_return_a_scalar(fault, verb, assert_raises):
    options, message = FUNCTIONS[fault]
    trainer = build(backend="reference", **options)
    assert_raises(lambda: call(trainer, verb, GOOD, GOOD), BatchError, message)


def test_a_metric_may_be_an_integer(make, make_batch):
    trainer = make("deep_mlp", "reference", metrics={"more": count})
    xs, ys = make_batch(trainer.spec)
    assert 0 <= trainer.evaluate(xs, ys)["more"] <= ys.size


@pytest.mark.parametrize("setting", ["epochs", "batch_size"])
def test_settings_of_fit_are_integers(setting):
    # Without its type checker, which would complain first.
    check = inspect.unwrap(checks.check_fit)
    settings = {"epochs": 1, "batch_size": 4, setting: 2.5}
    with pytest.raises(
        BatchError,
        match=rf"^{setting}: got 2\.5, expected an integer\. Pass one ",
    ):
        check(8, **settings)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_number_of_steps_is_positive(steps):
    with pytest.raises(
        ValueError,
        match=f"^steps: got {steps}, expected 1 or more. Ask for at "
        "least one training step",
    ):
        checks.check_steps(steps)
    checks.check_steps(1)
