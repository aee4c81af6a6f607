"""Optimizers by canonical name: the same steps, and a state that crosses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import State
from common.agreement import assert_close
from common.training import optimizers
from tests.conftest import exhaustive_but, one_in

STEPS = 3
LIBRARIES = ("equinox", "flax")


def decays(params):
    """All weights but those of norms: a mask by canonical name."""
    return {name: "norm" not in name for name in params}


def group(params):
    return {
        name: "head" if name.startswith("head.") else "body" for name in params
    }


SCHEDULE = optax.warmup_cosine_decay_schedule(1e-3, 1e-1, 2, 5)
OPTIMIZERS = {
    "sgd": optax.sgd(1e-2),
    "momentum": optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw_masked": optax.adamw(1e-2, weight_decay=0.1, mask=decays),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9, centered=True),
    "lion": optax.lion(1e-2),
    "clip_and_schedule": optax.chain(
        optax.clip_by_global_norm(0.1), optax.adam(SCHEDULE)
    ),
    "masked": optax.masked(optax.adam(1e-2), decays),
    "by_label": optax.multi_transform(
        {"head": optax.adam(1e-2), "body": optax.sgd(1e-2, momentum=0.9)},
        group,
    ),
    "injected": optax.inject_hyperparams(optax.adam)(SCHEDULE),
    "accumulated": optax.MultiSteps(
        optax.adam(1e-2), 2
    ).gradient_transformation(),
}
# Where each is on its own in the State.
KEYS = {
    "momentum": {"optimizer.0.trace.head.weight"},
    "adam": {"optimizer.0.count", "optimizer.0.mu.head.weight"},
    "clip_and_schedule": {"optimizer.1.0.nu.head.bias", "optimizer.1.1.count"},
    "by_label": {
        "optimizer.inner_states.body.inner_state.0.trace.blocks.0.norm.bias",
        "optimizer.inner_states.head.inner_state.0.mu.head.weight",
    },
    "injected": {"optimizer.hyperparams.learning_rate"},
}


@pytest.fixture(
    params=exhaustive_but(OPTIMIZERS, "clip_and_schedule", "by_label")
)
def optimizer(request):
    return OPTIMIZERS[request.param]


@pytest.fixture
def train(make, make_batch):
    """Builds a trainer and takes some steps, each on a batch of its own."""

    def train(backend, optimizer, steps=STEPS, start=0, state=None):
        trainer = make("deep_mlp", backend, optimizer=optimizer)
        if state is not None:
            trainer.load(state)
        losses = []
        for step in range(start, start + steps):
            batch = make_batch(trainer.spec, seed=step)
            losses.append(trainer.step(*batch)["loss"])
        return trainer, np.array(losses)

    return train


def check(actual: State, expected: State, quantity="update"):
    for name in ("params", "buffers", "opt"):
        assert_close(
            getattr(actual, name),
            getattr(expected, name),
            dtype="float64",
            quantity=quantity,
            what=name,
        )
    assert actual.step == expected.step


@pytest.mark.parametrize("library", LIBRARIES)
def test_steps_agree_with_the_reference(optimizer, library, train):
    actual, losses = train(library, optimizer)
    expected, reference = train("reference", optimizer)
    assert_close(losses, reference, dtype="float64", quantity="trajectory")
    check(actual.state(), expected.state())


def test_the_reference_is_plain_optax(optimizer, make, train):
    """No wrapper stands between the reference's parameters and optax."""
    trainer, _ = train("reference", optimizer, steps=0)
    params = trainer.native.params
    opt_state = trainer.native.opt_state
    assert jax.tree.structure(opt_state) == jax.tree.structure(
        optimizer.init(params)
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [("equinox", "flax"), ("flax", "equinox")],
    ids=["equinox-to-flax", "flax-to-equinox"],
)
def test_a_run_goes_on_in_the_other_library(
    optimizer, source, target, train, assert_same
):
    whole, expected = train(source, optimizer, steps=2 * STEPS)
    first, _ = train(source, optimizer)
    state = first.state()
    second, losses = train(target, optimizer, start=STEPS, state=state)
    assert_close(
        losses, expected[STEPS:], dtype="float64", quantity="trajectory"
    )
    check(second.state(), whole.state())
    # And back, bit for bit.
    assert_same(first.load(second.state()).state(), second.state())


@pytest.mark.parametrize("name", KEYS)
def test_keys_tell_optimizer_path_and_parameter(name, backend, make):
    state = make("deep_mlp", backend, optimizer=OPTIMIZERS[name]).state()
    assert state.opt.keys() >= KEYS[name]


# --- native optimizer states ------------------------------------------------

# optax calls a mask or label function with the library's own parameters, so
# one by canonical name would not do in plain optax.
BY_NAME = {"adamw_masked", "masked", "by_label"}


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n not in BY_NAME])
def test_equinox_keeps_what_plain_optax_would(name, make):
    optimizer = OPTIMIZERS[name]
    native = make("deep_mlp", "equinox", optimizer=optimizer).native
    expected = optimizer.init(eqx.filter(native.model, eqx.is_inexact_array))
    assert jax.tree.structure(native.opt_state) == jax.tree.structure(expected)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n not in BY_NAME])
def test_flax_keeps_what_an_optimizer_of_its_own_would(name, make):
    optimizer = OPTIMIZERS[name]
    native = make("deep_mlp", "flax", optimizer=optimizer).native
    expected = nnx.Optimizer(native.module, optimizer, wrt=nnx.Param)
    assert jax.tree.structure(nnx.state(native.optimizer)) == (
        jax.tree.structure(nnx.state(expected))
    )


# --- masks and labels -------------------------------------------------------


def test_a_mask_freezes_by_name(backend, make, make_batch):
    optimizer = optax.chain(
        optax.sgd(1e-2), optax.masked(optax.set_to_zero(), decays)
    )
    trainer = make("deep_mlp", backend, optimizer=optimizer)
    before = trainer.state().params
    trainer.step(*make_batch(trainer.spec))
    after = trainer.state().params
    changed = {n for n in after if not np.array_equal(after[n], before[n])}
    assert changed == {n for n in before if "norm" in n}


def test_a_function_sees_all_canonical_names(backend, make):
    seen = []

    def mask(params):
        seen.append({name: x.shape for name, x in params.items()})
        return decays(params)

    trainer = make(
        "digits_cnn", backend, optimizer=optax.masked(optax.adam(1e-2), mask)
    )
    variables = trainer.spec.variables()
    names = {name for name, v in variables.items() if v.trainable}
    assert seen and all(shapes.keys() == names for shapes in seen)


# --- the order of axes ------------------------------------------------------

BY_AXIS = {
    "adaptive_grad_clip": optax.adaptive_grad_clip(0.1),
    "centralize": optax.chain(optax.centralize(), optax.sgd(1e-2)),
}
BY_ELEMENT_OR_ARRAY = {
    "clip": optax.chain(optax.clip(1.0), optax.sgd(1e-2)),
    "clip_by_block_rms": optax.clip_by_block_rms(1.0),
    "lamb": optax.lamb(1e-2),
    "lars": optax.lars(1e-2),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("model", ["deep_mlp", "digits_cnn"])
@pytest.mark.parametrize("name", BY_AXIS)
def test_one_that_depends_on_axes_sees_canonical_arrays(
    name, model, library, make
):
    trainer = make(model, library, optimizer=BY_AXIS[name])
    assert not trainer.backend.optimizer.native_order


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("model", ["deep_mlp", "digits_cnn"])
@pytest.mark.parametrize(
    "name", one_in(4, [*OPTIMIZERS, *BY_ELEMENT_OR_ARRAY])
)
def test_one_that_does_not_sees_native_arrays(name, model, library, make):
    optimizer = (OPTIMIZERS | BY_ELEMENT_OR_ARRAY)[name]
    trainer = make(model, library, optimizer=optimizer)
    assert trainer.backend.optimizer.native_order


@pytest.mark.parametrize("library", LIBRARIES)
def test_native_order_adds_no_transposes_to_a_step(library, make, make_batch):
    """The transposes of a step with Adam are those of the gradients."""

    def transposes(optimizer):
        trainer = make("deep_mlp", library, optimizer=optimizer)
        batch = tuple(make_batch(trainer.spec))
        jaxpr = jax.make_jaxpr(trainer.pure_step)(trainer.leaves, batch)
        return str(jaxpr).count("transpose[")

    none = transposes(optax.set_to_zero())
    assert transposes(optax.adam(0.1)) == none
    centralized = optax.chain(optax.centralize(), optax.sgd(0.1))
    # Equinox stores these kernels in canonical order.
    assert (transposes(centralized) > none) == (library == "flax")


@pytest.mark.parametrize(
    ("optimizer", "got"),
    [
        (optax.adam, "adam of type function"),
        (1e-3, "0.001 of type float"),
        ("adam", "'adam' of type str"),
        (optax.GradientTransformation, "GradientTransformation of type type"),
    ],
)
def test_what_is_no_optimizer(optimizer, got):
    with pytest.raises(
        ValueError,
        match=rf"^optimizer: got {got}, expected an "
        r"optax\.GradientTransformation\. Make one, as in "
        r"`optax\.adam\(1e-3\)`\.$",
    ):
        optimizers.require_optimizer(optimizer)


def test_flatten_has_an_inverse():
    params = {"a.weight": jnp.ones((2, 3)), "a.bias": jnp.zeros(2)}
    state = OPTIMIZERS["clip_and_schedule"].init(params)
    flat = optimizers.flatten(state, "optimizer")
    assert flat.keys() == {
        "optimizer.1.0.count",
        "optimizer.1.0.mu.a.weight",
        "optimizer.1.0.mu.a.bias",
        "optimizer.1.0.nu.a.weight",
        "optimizer.1.0.nu.a.bias",
        "optimizer.1.1.count",
    }
    again = optimizers.unflatten(state, flat, "optimizer")
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert all(
        x is y
        for x, y in zip(
            jax.tree.leaves(again), jax.tree.leaves(state), strict=True
        )
    )
