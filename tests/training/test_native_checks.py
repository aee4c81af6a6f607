"""Bad arguments and batches for a model of the user."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.errors import BatchError
from common.training import losses
from tests.training import user_models
from tests.training.user_models import XS, YS

ADAM = optax.adam(0.1)


def trainer_of(name, library, **options):
    options = {"loss": "mse", "optimizer": ADAM, **options}
    return build(model=user_models.make(name, library), **options)


# --- arguments of `build` ---------------------------------------------------

ARGUMENTS = {
    "loss": (
        {"optimizer": ADAM},
        r"loss: got None, expected a loss to train EqxMlp with\. Pass "
        r'"mse", "cross_entropy" or a function of predictions and targets\.',
    ),
    "optimizer": (
        {"loss": "mse"},
        r"optimizer: got None, expected an optax\.GradientTransformation to "
        r"train EqxMlp, which has no default\. Pass one, as in "
        r"`optimizer=optax\.adam\(1e-3\)`\.",
    ),
    "several_optimizers": (
        {"loss": "mse", "optimizer": {"layers.0": ADAM}},
        r"optimizer: got a dict, expected one optax transformation to train "
        r"EqxMlp with\. Pass `step` to apply several, or join them with "
        r"`optax\.partition`\.",
    ),
    "backend": (
        {"loss": "mse", "optimizer": ADAM, "backend": "nnx"},
        r"backend: got 'nnx' for EqxMlp, expected 'equinox', the library of "
        r"the model\. Leave `backend` out\.",
    ),
    "spec": (
        {"loss": "mse", "optimizer": ADAM, "spec": "deep_mlp"},
        r"build: got spec with a model of yours, expected no such argument\. "
        r"Leave it out; a model of yours is built by its own class\.",
    ),
    "hyper_parameters": (
        {"loss": "mse", "optimizer": ADAM, "depth": 3},
        r"build: got depth with a model of yours, expected no such argument\. "
        r"Leave it out; a model of yours is built by its own class\.",
    ),
    "dtype": (
        {"loss": "mse", "optimizer": ADAM, "dtype": "int8"},
        r"dtype: got 'int8', expected one of 'float32', 'float64'\. [A-Z].+\.",
    ),
}


@pytest.mark.parametrize("fault", ARGUMENTS)
def test_bad_arguments(fault, assert_raises):
    options, message = ARGUMENTS[fault]
    model = user_models.make("Mlp", "equinox")
    jax.random.key(0)
    assert_raises(lambda: build(model=model, **options), ValueError, message)


def test_arguments_of_models_do_not_apply_to_specs(assert_raises):
    def call(*args, **options) -> Any: ...

    assert_raises(
        lambda: build(backend="flax", call=call, step=call),
        ValueError,
        r"build: got call, step with a spec, expected no such argument\. "
        r"Leave it out; a model of yours is built by its own class\.",
    )


def test_a_model_of_no_library(assert_raises):
    assert_raises(
        lambda: build({"weight": XS}, loss="mse", optimizer=ADAM),
        TypeError,
        r"model: got dict, expected an Equinox model, a pair of a model and "
        r"its state, or an NNX module\. Pass the object that the library's "
        r"constructor returned\.",
    )


@pytest.mark.parametrize("model", [eqx.nn.Identity(), nnx.Dropout(0.5)])
def test_a_model_without_parameters(model, assert_raises):
    assert_raises(
        lambda: build(model, loss="mse", optimizer=ADAM),
        ValueError,
        rf"{type(model).__name__}: got no parameters, expected at least one "
        r"to train\. Pass a model with floating arrays, in Flax as "
        r"`nnx\.Param`\.",
    )


def test_parameters_are_floating(assert_raises):
    class Counting(nnx.Module):
        def __init__(self):
            self.count = nnx.Param(np.zeros(3, "int32"))

    assert_raises(
        lambda: build(Counting(), loss="mse", optimizer=ADAM),
        ValueError,
        r"parameter 'count' of Counting: got int32, expected a floating "
        r"dtype, because it is trained\. Keep the array in an `nnx\.Variable` "
        r"of another type\.",
    )


def test_float64_needs_x64(assert_raises):
    model = user_models.make("Mlp", "equinox")
    with jax.enable_x64(False):
        assert_raises(
            lambda: build(model, loss="mse", optimizer=ADAM, dtype="float64"),
            ValueError,
            r"dtype: got 'float64' while x64 is off, expected x64 to be on\. "
            r'Call `jax\.config\.update\("jax_enable_x64", True\)` first\.',
        )


# --- batches ----------------------------------------------------------------

BATCHES = {
    "features": (
        "Mlp",
        XS[:, :2],
        YS,
        r"inputs: got float32\(8, 2\), for which calling {name} in training "
        r"mode raises \w+\(.+\), expected inputs that the call takes\. "
        r"Correct the inputs, or pass `call` to `build`, which says how to "
        r"call the model on a batch\.",
    ),
    "structure": (
        "Trees",
        {"x": XS},
        YS,
        r"inputs: got \{{'x': 'float32\(8, 3\)'\}}, for which calling {name} "
        r"in training mode raises KeyError\(.+\), expected inputs that the "
        r"call takes\. Correct the inputs, or pass `call` to `build`, which "
        r"says how to call the model on a batch\.",
    ),
    "sizes": (
        "Trees",
        {"x": XS, "weight": XS[:5, 0]},
        YS,
        r"inputs: got \{{'weight': 'float32\(5,\)', 'x': 'float32\(8, 3\)'\}}"
        r", expected arrays whose first axis is the example, with the same "
        r"number of examples\. Give every array that axis\.",
    ),
    "scalar": (
        "Mlp",
        np.float32(1),
        YS,
        r"inputs: got float32\(\), expected arrays whose first axis is the "
        r"example, with the same number of examples\. Give every array that "
        r"axis\.",
    ),
    "no_array": (
        "Mlp",
        [1.0, 2.0],
        YS,
        r"inputs: got float, expected an array\. Convert it with "
        r"`jnp\.asarray`\.",
    ),
    "nothing": (
        "Mlp",
        (),
        YS,
        r"inputs: got \(\), expected arrays for {name}\. Pass at least one "
        r"array\.",
    ),
    "wide_inputs": (
        "Mlp",
        XS.astype("float64"),
        YS,
        r"inputs: got dtype float64, expected at most the precision of "
        r"{name}, which is float32\. Cast the inputs with "
        r'`\.astype\("float32"\)`, or pass `dtype="float64"` to `build`\.',
    ),
    "targets": (
        "Mlp",
        XS,
        YS[:, :1],
        r"targets: got float32\(8, 1\), expected float32\(8, 2\) like the "
        r"predictions\. Reshape or cast the targets\.",
    ),
}


@pytest.mark.parametrize("library", ["equinox", "flax"])
@pytest.mark.parametrize("fault", BATCHES)
def test_bad_batches(fault, library, assert_raises):
    name, xs, ys, message = BATCHES[fault]
    trainer = trainer_of(name, library)
    class_name = {"equinox": "Eqx", "flax": "Nnx"}[library] + name
    message = message.format(name=class_name)
    for method in (trainer.step, trainer.fit):
        assert_raises(lambda m=method: m(xs, ys), BatchError, message)


def test_a_loss_that_does_not_fit(assert_raises):
    trainer = trainer_of("Tokens", "flax", loss=losses.mse)
    tokens = user_models.TOKENS
    assert_raises(
        lambda: trainer.step(tokens, YS),
        BatchError,
        r"targets: got the structure PyTreeDef\(\*\), expected PyTreeDef\(.+"
        r"\) like the predictions\. Pass the targets in this structure\.",
    )

    def wide(outputs, targets):
        return jnp.zeros(())

    trainer = trainer_of("Tokens", "flax", loss=wide)
    assert_raises(
        lambda: trainer.step(tokens, YS.astype("float64")),
        BatchError,
        r"targets: got dtype float64, expected at most the precision of "
        r"NnxTokens, which is float32\. Cast the targets with "
        r'`\.astype\("float32"\)`, or pass `dtype="float64"` to `build`\.',
    )


def test_all_examples_of_a_data_set_are_paired(assert_raises):
    trainer = trainer_of("Mlp", "flax", loss=lambda outputs, ys: outputs.sum())
    assert_raises(
        lambda: trainer.fit(XS, YS[:4]),
        BatchError,
        r"inputs and targets: got \('float32\(8, 3\)', 'float32\(4, 2\)'\), "
        r"expected arrays whose first axis is the example, with the same "
        r"number of examples\. Give every array that axis\.",
    )
    assert trainer.fit(XS, None, batch_size=4, progress=False).shape == (2,)


def test_predict_names_the_mode_in_which_it_fails(assert_raises):
    trainer = trainer_of("Mlp", "flax")
    assert_raises(
        lambda: trainer.predict(XS[:, :1]),
        BatchError,
        r"inputs: got float32\(8, 1\), for which calling NnxMlp in inference "
        r"mode raises .+, expected inputs that the call takes\. Correct the "
        r"inputs, or pass `call` to `build`, which says how to call the model "
        r"on a batch\.",
    )


CALLS = {
    "no_pair": (
        lambda model, xs, training, key: jax.vmap(model)(xs),
        r"call of EqxMlp: got \w+, expected \(outputs, native\)\. Return the "
        r"outputs, and the model, its new state, or None if the call changes "
        r"nothing\.",
    ),
    "another_structure": (
        lambda model, xs, training, key: (
            jax.vmap(model)(xs),
            model.layers[0],
        ),
        r"EqxMlp after a call: got Linear of another structure, expected the "
        r"structure that it had before\. Return the model or pair with other "
        r"arrays only\.",
    ),
}


@pytest.mark.parametrize("fault", CALLS)
def test_calls_that_return_something_else(fault, assert_raises):
    call, message = CALLS[fault]
    trainer = trainer_of("Mlp", "equinox", call=call)
    with pytest.raises(BatchError) as caught:
        trainer.step(XS, YS)
    cause = caught.value.__cause__
    assert isinstance(cause, TypeError)
    with pytest.raises(TypeError, match=f"^{message}"):
        raise cause


def test_a_pytree_of_the_same_shapes_is_checked_once():
    trainer = trainer_of("Trees", "flax")
    xs = user_models.inputs_of("Trees")
    trainer.step(xs, YS)
    assert trainer._checks.has_seen(xs, YS, True)
    assert not trainer._checks.has_seen(xs, YS, False)
    assert not trainer._checks.has_seen({"x": XS, "w": YS}, YS, True)


def test_the_spec_of_a_users_model():
    trainer = trainer_of("Mlp", "flax")
    with pytest.raises(
        AttributeError,
        match=r"^spec: got a trainer of NnxMlp, a model that was passed to "
        r"`build\(model=\.\.\.\)`, expected one of a spec\. Use "
        r"`trainer\.name`, or `trainer\.native` for the model\.$",
    ):
        _ = trainer.spec
