"""`build(compute_dtype=...)`: float32 state, and products in bfloat16."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import build, compare, load
from common.agreement import EPS, relative_error
from common.training.precision import cast, find_compute_dtype, widened
from impl_equinox.precision import narrow
from impl_flax.precision import set_dtype
from tests.conftest import exhaustive_but
from tests.training import user_models
from tests.training.user_models import XS, YS, inputs_of, loss_of

NARROW = "bfloat16"
LIBRARIES = ("equinox", "flax")
each_library = pytest.mark.parametrize("library", LIBRARIES)
SMALL = {"depth": 1, "size": 3, "compute_dtype": NARROW}


def trainer_of(name, library, **options):
    options = {"loss": loss_of(name), "optimizer": optax.adam(0.1), **options}
    return build(model=user_models.make(name, library), **options)


def products(function, *args):
    """Returns the dtypes of the matrix products of a function."""
    found = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.update(x.aval.dtype.name for x in equation.invars)
            for inner in jax.tree.leaves(
                list(equation.params.values()),
                is_leaf=lambda x: hasattr(x, "eqns"),
            ):
                if hasattr(inner, "eqns"):
                    visit(getattr(inner, "jaxpr", inner))

    visit(jax.make_jaxpr(function)(*args).jaxpr)
    return found


# --- models of the user ------------------------------------------------------


@pytest.mark.parametrize("library", exhaustive_but(LIBRARIES, "flax"))
@pytest.mark.parametrize(
    "name",
    exhaustive_but(["Stateful", "Tokens", "Mlp"], "Stateful"),
)
def test_a_users_model_computes_in_the_compute_dtype(name, library):
    xs = inputs_of(name)
    mixed = trainer_of(name, library, compute_dtype=NARROW)
    wide = trainer_of(name, library)
    for trainer, dtype in ((mixed, NARROW), (wide, "float32")):
        found = products(trainer.pure_step, trainer.leaves, (xs, YS))
        assert found == {dtype}
    before = mixed.state()
    loss = mixed.step(xs, YS)["loss"]
    assert loss.dtype == "float32"
    error = relative_error(loss, wide.step(xs, YS)["loss"])
    assert 0 < error <= 4 * EPS[NARROW]
    after = mixed.state()
    for key, x in after.flat().items():
        assert x.dtype == before.flat()[key].dtype, key
    wide.load(after)  # a State crosses to float32
    outputs = jax.tree.leaves(mixed.predict(xs))
    for x, y in zip(outputs, jax.tree.leaves(wide.predict(xs)), strict=True):
        assert x.dtype == "float32"
        assert 0 < relative_error(x, y) <= 4 * EPS[NARROW]


@each_library
def test_a_users_model_is_fitted_and_evaluated(library):
    mixed = trainer_of("Stateful", library, compute_dtype=NARROW)
    losses = mixed.fit(XS, YS, epochs=2, batch_size=4, progress=False)
    assert losses.dtype == "float32" and np.isfinite(losses).all()
    assert mixed.evaluate(XS, YS)["loss"].dtype == "float32"
    native = mixed.native
    if library == "flax":  # it has its own dtype again
        assert native.linear.dtype is None
        assert native.norm.dtype is None
    else:
        assert type(native[0].norm) is eqx.nn.BatchNorm


@each_library
def test_a_call_of_the_user_is_narrowed_too(library):
    seen = []

    def call(native, xs, *, training, key):
        linear = native.layers[0] if library == "equinox" else native.hidden
        seen.append(xs.dtype.name)
        if library == "equinox":
            seen.append(linear.weight.dtype.name)
            return jax.vmap(native)(xs), None
        seen.append(np.dtype(linear.dtype).name)
        return native(xs), None

    mixed = trainer_of("Mlp", library, compute_dtype=NARROW, call=call)
    assert mixed.predict(XS).dtype == "float32"
    assert set(seen) == {NARROW}


@pytest.mark.exhaustive
def test_trainers_of_users_models_are_compared():
    left, right = (
        trainer_of("Mlp", library, compute_dtype=NARROW)
        for library in LIBRARIES
    )
    rules = user_models.MLP_RULES
    report = compare(left, right, XS, YS, rules=rules, carry=True, steps=2)
    assert report.ok, str(report)
    assert any("ceiling" in note and NARROW in note for note in report.notes)


# --- the casts of each library -----------------------------------------------


class Norms(eqx.Module):
    norm: eqx.nn.LayerNorm
    spectral: eqx.nn.SpectralNorm
    weights: eqx.nn.WeightNorm
    count: jax.Array

    def __init__(self, key):
        self.norm = eqx.nn.LayerNorm(3)
        self.spectral = eqx.nn.SpectralNorm(
            eqx.nn.Linear(3, 3, key=key), "weight", key=key
        )
        self.weights = eqx.nn.WeightNorm(eqx.nn.Linear(3, 2, key=key))
        self.count = jnp.array(1)


def test_equinox_casts_all_but_norms():
    with jax.enable_x64(False):
        model, state = eqx.nn.make_with_state(Norms)(jr.key(0))
    assert narrow(model, None) is model
    found = narrow(model, NARROW)
    assert found.norm.weight.dtype == "float32"
    assert found.count.dtype == model.count.dtype
    x = jnp.ones(3, NARROW)
    y, state = found.spectral(x, state)
    assert y.dtype == NARROW
    assert found.weights(x).dtype == NARROW
    u, _ = state.get(found.spectral.uv_index)
    assert u.dtype == "float32"
    assert products(lambda x: found.weights(x), x) == {NARROW}
    linear = narrow(model.weights.layer, NARROW)
    assert linear.weight.dtype == linear.bias.dtype == NARROW


def test_flax_sets_the_dtype_of_layers_but_keeps_that_of_norms():
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(
        nnx.Linear(3, 3, rngs=rngs),
        nnx.LayerNorm(3, rngs=rngs),
        nnx.Embed(5, 3, rngs=rngs),
    )
    set_dtype(module, NARROW)
    layers: Any = module.layers
    linear, norm, embed = layers
    x = jnp.ones((2, 3), "float32")
    assert linear(x).dtype == norm(x).dtype == NARROW
    assert embed(jnp.array([1])).dtype == NARROW
    scale = 1 + 2.0**-9  # bfloat16 rounds it to 1
    norm.scale.set_value(jnp.full(3, scale, "float32"))
    casts = str(jax.make_jaxpr(norm)(x))
    assert casts.count("new_dtype=bfloat16") == 1  # of the output
    for x in jax.tree.leaves(nnx.state(module)):
        assert x.dtype == "float32"


def test_cast_keeps_what_is_no_float():
    tree = {"x": np.ones(2, "float32"), "n": np.arange(2), "key": jr.key(0)}
    found = cast(tree, NARROW)
    assert found["x"].dtype == NARROW
    assert found["n"].dtype == tree["n"].dtype
    assert found["key"] is tree["key"]
    assert cast(tree, None) is tree
    assert widened(found, NARROW)["x"].dtype == "float32"
    assert widened(found, None) is found


# --- files -------------------------------------------------------------------


def test_a_file_restores_the_compute_dtype(tmp_path, assert_same):
    path = tmp_path / "run.safetensors"
    mixed = build("deep_mlp", backend="reference", **SMALL)
    mixed.save(path)
    again = load(path, backend="flax")
    assert again.settings.compute_dtype == NARROW
    wide = build("deep_mlp", backend="equinox", depth=1, size=3)
    assert_same(wide.load(mixed.state()).state(), mixed.state())
    assert wide.settings.compute_dtype is None


# --- errors ------------------------------------------------------------------


def test_float64_parameters_are_refused():
    with pytest.raises(
        ValueError, match="dtype with compute_dtype='bfloat16': got 'float64'"
    ):
        build("deep_mlp", backend="flax", dtype="float64", **SMALL)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", 3, "half"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="compute_dtype: got .*expected"):
        build("deep_mlp", backend="flax", compute_dtype=dtype)


def test_a_dtype_may_be_an_object():
    assert find_compute_dtype(jnp.bfloat16) == NARROW
    assert find_compute_dtype(np.float16) == "float16"
    assert find_compute_dtype(None) is None


def test_a_step_of_the_user_is_refused():
    def step(native, carry, batch, *, key, update):
        return native, carry, {"loss": jnp.zeros(())}

    with pytest.raises(ValueError, match="got compute_dtype with a step"):
        trainer_of("Mlp", "flax", step=step, compute_dtype=NARROW)
