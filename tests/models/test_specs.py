"""What a spec declares: names, shapes, initial values, hyper-parameters."""

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
others = pytest.mark.parametrize(
    "backend", [b for b in backends() if b != "reference"]
)


# --- names, shapes ----------------------------------------------------------


@dialects
def test_names_and_shapes_are_the_specs(model, backend, batch_norm, make):
    trainer = make(model, backend, batch_norm=batch_norm)
    state = trainer.state()
    variables = trainer.spec.variables()
    params = {n: v.shape for n, v in variables.items() if v.trainable}
    buffers = {n: v.shape for n, v in variables.items() if not v.trainable}
    assert {n: x.shape for n, x in state.params.items()} == params
    assert {n: x.shape for n, x in state.buffers.items()} == buffers
    for name in state.params:
        assert state.opt[f"optimizer.0.mu.{name}"].shape == params[name]


@dialects
def test_forward_updates_every_buffer_and_no_other(model, batch_norm):
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


def test_gradients_that_are_noise_are_declared(model):
    """A gradient whose terms cancel leaves round-off, which Adam blows up.

    Exact zeros (behind a relu that is shut) stay zero and do no harm.
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
    noise = {
        name
        for name, size in sizes.items()
        if np.any((0 < size) & (size < round_off))
    }
    assert noise == set(spec.zero_gradient)


def test_a_name_has_one_spec():
    assert specs() == tuple(SPECS)
    assert all(name == spec.name for name, spec in SPECS.items())


# --- initial values ---------------------------------------------------------


@others
@dialects
def test_the_same_seed_is_the_same_model(
    model, backend, batch_norm, make, assert_same
):
    actual = make(model, backend, batch_norm=batch_norm).state()
    expected = make(model, "reference", batch_norm=batch_norm).state()
    assert_same(actual, expected)


def test_initial_values_are_the_specs_in_either_dtype(model, make):
    """Drawn in float32 and cast, so that both dtypes start equal."""
    single = make(model, "reference", dtype="float32").state()
    double = make(model, "reference", dtype="float64").state()
    for name, x in (*single.params.items(), *single.buffers.items()):
        y = {**double.params, **double.buffers}[name]
        assert np.array_equal(x, y), name


def test_another_seed_is_another_model(model, backend, make):
    first, second = (
        make(model, backend, seed=seed).state() for seed in (0, 1)
    )
    assert not np.array_equal(first.rng["key"], second.rng["key"])
    drawn = [
        name
        for name, variable in make(model, backend).spec.variables().items()
        if variable.trainable and "norm" not in name.split(".")[-2]
    ]
    assert drawn
    for name in drawn:
        assert not np.array_equal(first.params[name], second.params[name])


def test_no_two_arrays_are_drawn_alike(model):
    spec = find_spec(model, {})
    params, _ = spec.init(jr.key(0))
    drawn = [np.asarray(x) for x in params.values() if np.ptp(x)]
    starts = {x.ravel()[0].item() for x in drawn}
    assert len(starts) == len(drawn) > 1


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(
    ("make_variables", "fan_in"),
    [
        (lambda bias: layers.linear_variables(100, 400, bias=bias), 100),
        (lambda bias: layers.conv_variables(8, 400, (3, 3), bias=bias), 72),
    ],
    ids=["linear", "conv"],
)
def test_weights_are_uniform_within_their_bound(make_variables, fan_in, bias):
    variables = make_variables(bias)
    assert variables.keys() == ({"weight", "bias"} if bias else {"weight"})
    bound = 1 / np.sqrt(fan_in)
    for seed, (name, variable) in enumerate(variables.items()):
        x = np.asarray(variable.init(jr.key(seed), variable.shape))
        assert (x.shape, x.dtype) == (variable.shape, np.float32), name
        assert variable.trainable
        assert np.abs(x).max() <= bound
        # Six standard deviations of the mean, and of the mean square.
        assert abs(x.mean()) < 6 * bound / np.sqrt(3 * x.size)
        spread = 6 * bound**2 * np.sqrt(4 / 45 / x.size)
        assert abs(np.mean(x**2) - bound**2 / 3) < spread


@dialects
def test_a_batch_norm_starts_as_the_identity(batch_norm):
    variables = layers.batch_norm_variables(5, batch_norm)
    values = {
        name: np.asarray(v.init(jr.key(0), v.shape)).tolist()
        for name, v in variables.items()
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


def test_spectral_estimates_start_settled(make):
    """Of unit length, and near the largest singular value already."""
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


def test_a_spec_is_frozen_and_equal_by_value(model):
    spec = find_spec(model, {})
    assert spec == SPECS[model]() and hash(spec) == hash(SPECS[model]())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(spec, "momentum", 0.5)  # noqa: B010


def test_a_spec_may_be_changed_on_the_way(backend, make):
    spec = find_spec("deep_mlp", {"depth": 2, "size": 3})
    trainer = make(spec, backend, momentum=0.5)
    assert isinstance(trainer.spec, Spec)
    assert trainer.spec == dataclasses.replace(spec, momentum=0.5)


def test_a_spec_of_ones_own_needs_no_name_in_the_registry(make, make_batch):
    """The reference trains any spec, registered or not."""

    class Own(DeepMLP):
        name = "own"

    own = Own()
    loss = make(own, "reference").step(*make_batch(own))["loss"]
    assert np.isfinite(loss)


HYPER_PARAMETERS = {
    "momentum": 0.5,
    "eps": 0.5,
    "dropout": 0.9,
    "batch_norm": "batch",
}


def program(trainer, batch) -> str:
    """The text of a trainer's training step, before it is compiled."""
    jaxpr = jax.make_jaxpr(trainer.pure_step)(trainer.leaves, batch)
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))


CELLS = [
    (model, name)
    for model in specs()
    for name in HYPER_PARAMETERS
    if name in {field.name for field in dataclasses.fields(SPECS[model])}
]


@pytest.mark.parametrize(("model", "name"), CELLS)
def test_a_hyper_parameter_reaches_the_library(
    model, name, backend, make, make_batch
):
    """One that a model ignores would show in no shape."""
    default = make(model, backend)
    batch = make_batch(default.spec)
    changed = make(model, backend, **{name: HYPER_PARAMETERS[name]})
    assert program(changed, batch) != program(default, batch)


def test_equal_hyper_parameters_make_equal_programs(backend, make, make_batch):
    """Without which the test above could not fail."""
    first, second = (make("deep_mlp", backend, fresh=True) for _ in range(2))
    batch = make_batch(first.spec)
    assert program(first, batch) == program(second, batch)
