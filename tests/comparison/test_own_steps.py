"""`compare` on trainers whose models bring their own step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from common import build, compare
from common.errors import StateError
from tests.conftest import exhaustive_but
from tests.training.test_own_step import REAL, STEPS, make_gan


def compare_gans(right_step=None, **options):
    """Compares the GAN of both libraries."""
    left = make_gan("equinox")
    right = make_gan("flax", **({"step": right_step} if right_step else {}))
    return compare(left, right, REAL, **{"steps": 2, "carry": True, **options})


def test_equal_steps_agree():
    report = compare_gans()
    assert report.ok, str(report)
    quantities = {row.quantity for row in report.rows}
    assert quantities == {
        *("loss", "update", "trajectory", "parameters", "moments")
    }
    assert "each trainer takes its own step" in str(report)
    assert "left out: outputs in inference mode" in str(report)


def test_models_that_take_the_batch_are_called_as_well():
    def step(model, carry, batch, *, key, update):
        def compute_loss(model):
            return jnp.mean((model(batch[0]) - batch[1]) ** 2)

        loss, grads = nnx.value_and_grad(compute_loss)(model)
        update("optimizer", model, grads)
        return None, None, {"loss": loss}

    def linear(**options):
        model = nnx.Linear(2, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        return build(model=model, optimizer=optax.adam(0.1), **options)

    left, right = linear(step=step), linear(loss="mse")
    for report in (
        compare(left, right, REAL, REAL, steps=2),
        compare(right, left, REAL, REAL, steps=2),
    ):
        assert report.ok, str(report)
        quantities = {row.quantity for row in report.rows}
        assert quantities >= {"state", "forward", "eval"}


def test_arrays_that_differ_are_reported():
    """The GANs have weights of their own."""
    found = compare_gans(carry=False).first_divergence
    assert found is not None and found.quantity == "state"


def doubled_update(gan, carry, batch, *, key, update):
    def twice(name, gan, grads):
        if name == "generator":
            grads = jax.tree.map(lambda x: 2 * x, grads)
        return update(name, gan, grads)

    return STEPS["flax"](gan, carry, batch, key=key, update=twice)


def other_carry(gan, carry, batch, *, key, update):
    gan, carry, metrics = STEPS["flax"](
        gan, carry, batch, key=key, update=update
    )
    return gan, {"mean": carry["mean"] + 1}, metrics


def other_loss(gan, carry, batch, *, key, update):
    gan, carry, metrics = STEPS["flax"](
        gan, carry, batch, key=key, update=update
    )
    return gan, carry, {**metrics, "loss": 2 * metrics["loss"]}


# The step, and the quantity and the array at which it is found.
FAULTS = {
    "loss": (other_loss, "loss", ""),
    "update": (doubled_update, "update", "generator."),
    "carry": (other_carry, "update", "carry.mean"),
}


@pytest.mark.parametrize("name", exhaustive_but(FAULTS, "carry"))
def test_a_fault_in_the_right_step_is_found(name):
    step, quantity, leaf = FAULTS[name]
    found = compare_gans(step, steps=1).first_divergence
    assert found is not None
    assert found.quantity == quantity
    assert leaf in found.leaf


def test_optimizers_that_do_not_correspond_are_refused():
    parts = ("generator", "discriminator")
    right = make_gan(
        "flax", optimizer={part: optax.adam(0.1) for part in parts}
    )
    with pytest.raises(StateError, match="got nothing, expected an array"):
        compare(make_gan("equinox"), right, REAL, steps=1)


def test_other_dtypes_are_refused():
    carry = {"mean": np.zeros(2, "float32")}
    right = make_gan("flax", dtype="float32", carry=carry)
    with pytest.raises(ValueError, match="dtype of the right trainer: got fl"):
        compare(make_gan("equinox"), right, REAL, steps=1)


def test_a_loss_is_refused():
    with pytest.raises(ValueError, match="two trainers: got loss, expected"):
        compare_gans(loss="mse")
