"""Specs: names, shapes, initial values and hyper-parameters."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from common import layers
from common.models import SPECS, find_spec, specs
from common.models.deep_mlp import DeepMLP
from common.protocol import Spec
from common.registry import backends

DIALECTS = layers.BATCH_NORM_DIALECTS
dialects = pytest.mark.parametrize("batch_norm", DIALECTS)
libraries = pytest.mark.parametrize(
    "backend", [name for name in backends() if name != "reference"]
)


# --- names, shapes ----------------------------------------------------------


@dialects
def test_state_has_the_names_and_shapes_of_the_spec(
    model, backend, batch_norm, make
):
    trainer = make(model, backend, batch_norm=batch_norm)
    state = trainer.state()
    variables = trainer.spec.variables()
    params, buffers = (
        {
            name: variable.shape
            for name, variable in variables.items()
            if variable.trainable == trainable
        }
        for trainable in (True, False)
    )
    assert {name: x.shape for name, x in state.params.items()} == params
    assert {name: x.shape for name, x in state.buffers.items()} == buffers
    for name in state.params:
        assert state.opt[f"optimizer.0.mu.{name}"].shape == params[name]


@dialects
def test_forward_returns_every_buffer_and_no_other_array(model, batch_norm):
    spec = find_spec(model, {"batch_norm": batch_norm})
    params, buffers = jax.eval_shape(spec.init, jr.key(0))
    xs = jax.ShapeDtypeStruct((4, *spec.inputs.shape), jnp.float32)
    for training in (True, False):
        _, updated = jax.eval_shape(
            lambda params, buffers, xs, training=training: spec.forward(
                params, buffers, xs, key=jr.key(0), training=training
            ),
            params,
            buffers,
            xs,
        )
        assert updated == buffers


def test_zero_gradients_are_declared(model):
    """Gradients that are zero up to round-off are listed in `zero_gradient`.

    Adam amplifies round-off to a full step. Exact zeros, such as those of a
    relu that is inactive on the whole batch, stay zero.
    """
    spec = find_spec(model, {})
    with jax.enable_x64(True):
        params, buffers = jax.tree.map(
            lambda x: x.astype("float64") if x.dtype == "float32" else x,
            spec.init(jr.key(0)),
        )
    rng = np.random.default_rng(0)
    xs = jnp.array(rng.normal(size=(16, *spec.inputs.shape)))

    def total(params):
        predictions, _ = spec.forward(
            params, buffers, xs, key=jr.key(1), training=True
        )
        weights = np.random.default_rng(1).normal(size=predictions.shape)
        return jnp.sum(predictions * weights)

    gradients = jax.jit(jax.grad(total))(params)
    sizes = {name: np.abs(np.asarray(g)) for name, g in gradients.items()}
    largest = max(size.max() for size in sizes.values())
    round_off = 1e3 * np.finfo("float64").eps * largest
    zero_up_to_round_off = {
        name
        for name, size in sizes.items()
        if np.any((0 < size) & (size < round_off))
    }
    assert zero_up_to_round_off == set(spec.zero_gradient)


def test_specs_are_registered_under_their_names():
    assert specs() == tuple(SPECS)
    assert all(name == spec.name for name, spec in SPECS.items())


# --- initial values ---------------------------------------------------------


@libraries
@dialects
def test_initial_state_is_the_same_in_every_backend(
    model, backend, batch_norm, make, assert_same
):
    actual = make(model, backend, batch_norm=batch_norm).state()
    expected = make(model, "reference", batch_norm=batch_norm).state()
    assert_same(actual, expected)


def test_initial_values_are_the_same_in_both_dtypes(model, make):
    """They are sampled in float32 and cast."""
    single = make(model, "reference", dtype="float32").state()
    double = make(model, "reference", dtype="float64").state()
    for name, x in (*single.params.items(), *single.buffers.items()):
        y = {**double.params, **double.buffers}[name]
        assert np.array_equal(x, y), name


def test_seed_changes_the_initial_values(model, backend, make):
    first, second = (
        make(model, backend, seed=seed).state() for seed in (0, 1)
    )
    assert not np.array_equal(first.rng["key"], second.rng["key"])
    sampled = [
        name
        for name, variable in make(model, backend).spec.variables().items()
        if variable.trainable and "norm" not in name.split(".")[-2]
    ]
    assert sampled
    for name in sampled:
        assert not np.array_equal(first.params[name], second.params[name])


def test_parameters_are_sampled_from_different_keys(model):
    spec = find_spec(model, {})
    params, _ = spec.init(jr.key(0))
    sampled = [np.asarray(x) for x in params.values() if np.ptp(x)]
    first_elements = {x.ravel()[0].item() for x in sampled}
    assert len(first_elements) == len(sampled) > 1


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(
    ("make_variables", "fan_in"),
    [
        (lambda bias: layers.linear_variables(100, 400, bias=bias), 100),
        (lambda bias: layers.conv_variables(8, 400, (3, 3), bias=bias), 72),
    ],
    ids=["linear", "conv"],
)
def test_weights_are_sampled_uniformly_within_their_bound(
    make_variables, fan_in, bias
):
    variables = make_variables(bias)
    assert variables.keys() == ({"weight", "bias"} if bias else {"weight"})
    bound = 1 / np.sqrt(fan_in)
    for seed, (name, variable) in enumerate(variables.items()):
        x = np.asarray(variable.init(jr.key(seed), variable.shape))
        assert (x.shape, x.dtype) == (variable.shape, np.float32), name
        assert variable.trainable
        assert np.abs(x).max() <= bound
        # Within six standard deviations of the mean and of the mean square.
        assert abs(x.mean()) < 6 * bound / np.sqrt(3 * x.size)
        deviation = bound**2 * np.sqrt(4 / 45 / x.size)
        assert abs(np.mean(x**2) - bound**2 / 3) < 6 * deviation


@dialects
def test_initial_values_of_a_batch_norm(batch_norm):
    variables = layers.batch_norm_variables(5, batch_norm)
    values = {
        name: np.asarray(variable.init(jr.key(0), variable.shape)).tolist()
        for name, variable in variables.items()
    }
    var = 0.0 if batch_norm == "ema" else 1.0
    expected: dict[str, Any] = {
        "weight": [1.0] * 5,
        "bias": [0.0] * 5,
        "running_mean": [0.0] * 5,
        "running_var": [var] * 5,
    }
    if batch_norm == "ema":
        expected["first_time"] = True
    if batch_norm == "batch":
        expected["num_batches_tracked"] = 0
    assert values == expected


def test_initial_spectral_norm_estimates_are_converged(make):
    """They have unit norm, and give the spectral norm to within 1%."""
    state = make("stateful_mlp", "reference").state()
    u = state.buffers["spectral_linear.weight_u"]
    v = state.buffers["spectral_linear.weight_v"]
    weight = state.params["spectral_linear.weight"]
    single = np.finfo("float32").eps
    assert abs(np.linalg.norm(u) - 1) < 8 * single
    assert abs(np.linalg.norm(v) - 1) < 8 * single
    sigma = np.linalg.svd(weight, compute_uv=False)[0]
    assert 0.99 * sigma < u @ weight @ v < sigma * (1 + 8 * single)


# --- hyper-parameters -------------------------------------------------------


def test_spec_is_frozen_and_compared_by_value(model):
    spec = find_spec(model, {})
    assert spec == SPECS[model]() and hash(spec) == hash(SPECS[model]())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(spec, "momentum", 0.5)  # noqa: B010


def test_build_overrides_the_hyper_parameters_of_a_spec(backend, make):
    spec = find_spec("deep_mlp", {"depth": 2, "size": 3})
    trainer = make(spec, backend, momentum=0.5)
    assert isinstance(trainer.spec, Spec)
    assert trainer.spec == dataclasses.replace(spec, momentum=0.5)


def test_reference_trains_a_spec_that_is_not_registered(make, make_batch):
    class UserSpec(DeepMLP):
        name = "user_spec"

    spec = UserSpec()
    loss = make(spec, "reference").step(*make_batch(spec))["loss"]
    assert np.isfinite(loss)


HYPER_PARAMETERS = {
    "momentum": 0.5,
    "eps": 0.5,
    "dropout": 0.9,
    "batch_norm": "batch",
}


def program(trainer, batch) -> str:
    """Returns the jaxpr of a trainer's step as text, without addresses."""
    jaxpr = jax.make_jaxpr(trainer.pure_step)(trainer.leaves, batch)
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))


CELLS = [
    (model, name)
    for model in specs()
    for name in HYPER_PARAMETERS
    if name in {field.name for field in dataclasses.fields(SPECS[model])}
]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param(
            *cell,
            marks=() if cell[0] == "stateful_mlp" else pytest.mark.exhaustive,
        )
        for cell in CELLS
    ],
)
def test_hyper_parameter_changes_the_program(
    model, name, backend, make, make_batch
):
    """None of them changes a shape, so a model could ignore them unnoticed."""
    default = make(model, backend)
    batch = make_batch(default.spec)
    changed = make(model, backend, **{name: HYPER_PARAMETERS[name]})
    assert program(changed, batch) != program(default, batch)


def test_program_is_the_same_for_equal_hyper_parameters(
    backend, make, make_batch
):
    """Otherwise the test above would pass for any model."""
    first, second = (make("deep_mlp", backend, fresh=True) for _ in range(2))
    batch = make_batch(first.spec)
    assert program(first, batch) == program(second, batch)
