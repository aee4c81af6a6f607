"""How each library's models are called on a batch: `impl_*/calling.py`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from impl_equinox import calling as equinox_calling
from impl_flax import calling as flax_calling
from tests.training import user_models
from tests.training.user_models import XS

# --- Equinox ----------------------------------------------------------------


def test_an_equinox_model_is_called_on_each_example():
    model = user_models.make("Mlp", "equinox")
    outputs, native = equinox_calling.call(model, XS, training=True)
    assert native is model
    np.testing.assert_array_equal(outputs, jax.vmap(model)(XS))


def test_state_is_passed_and_returned():
    def make():  # a state can be used only once
        return user_models.make("Stateful", "equinox")

    outputs, (_, state) = equinox_calling.call(
        make(), XS, training=True, key=jr.key(0)
    )
    model, old = make()
    expected, new = jax.vmap(
        lambda x, key: model(x, old, key=key),
        axis_name="batch",
        out_axes=(0, None),
    )(XS, jr.split(jr.key(0), 8))
    np.testing.assert_array_equal(outputs, expected)
    assert eqx.tree_equal(state, new)
    assert not eqx.tree_equal(state, make()[1])
    inference, (_, state) = equinox_calling.call(make(), XS, training=False)
    assert eqx.tree_equal(state, make()[1])
    assert not (inference == outputs).all()


class PositionalKey(eqx.Module):
    """Takes its key by position, and always."""

    dropout: eqx.nn.Dropout

    def __init__(self):
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, key):
        return self.dropout(x, key=key)


def test_every_example_has_a_key_of_its_own():
    ones = np.ones((64, 3), "float32")
    outputs, _ = equinox_calling.call(
        PositionalKey(), ones, training=True, key=jr.key(0)
    )
    assert len({x.tobytes() for x in np.asarray(outputs)}) > 2
    inference, _ = equinox_calling.call(PositionalKey(), ones, training=False)
    np.testing.assert_array_equal(inference, ones)


class Nested(eqx.Module):
    blocks: list

    def __call__(self, x, state):
        return self.blocks[0]["norm"](x, state)


def test_the_axis_name_is_that_of_the_layers():
    def make():
        norm = eqx.nn.BatchNorm(3, "examples", mode="batch")
        return Nested([{"norm": norm}])

    model, state = eqx.nn.make_with_state(make)()
    assert equinox_calling.axis_name(model) == "examples"
    assert (
        equinox_calling.axis_name(user_models.make("Mlp", "equinox")) is None
    )
    outputs, _ = equinox_calling.call((model, state), XS, training=True)
    assert (jnp.sign(outputs).sum(0) != 8).all()


def test_results_are_put_into_the_pair():
    pair = user_models.make("Stateful", "equinox")
    assert equinox_calling.with_state(pair, None) is pair
    assert equinox_calling.with_state(pair, pair[1]) == pair
    assert equinox_calling.with_state(pair, (1, 2)) == (1, 2)
    assert equinox_calling.copy(pair) is pair
    assert equinox_calling.model_of(pair) is pair[0]
    assert equinox_calling.model_of(pair[0]) is pair[0]
    assert not equinox_calling.is_pair((pair[0], pair[0]))


# --- Flax -------------------------------------------------------------------


def test_a_flax_module_is_called_on_the_batch_and_updated():
    module = user_models.make("Stateful", "flax")
    before = np.asarray(module.norm.mean[...])
    outputs, native = flax_calling.call(module, XS, training=True)
    assert native is module and outputs.shape == (8, 2)
    assert (module.norm.mean[...] != before).all()
    assert module.dropout.rngs.count[...] == 1


def test_inference_mode_changes_nothing():
    module = user_models.make("Stateful", "flax")
    before = np.asarray(module.norm.mean[...])
    first, _ = flax_calling.call(module, XS, training=False)
    second, _ = flax_calling.call(module, XS, training=False)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(module.norm.mean[...], before)
    assert not module.dropout.deterministic  # the mode of the module stays


class TakesRngs(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None):
        return self.dropout(x, rngs=rngs)


def test_a_flax_module_that_takes_rngs_gets_the_key():
    module = TakesRngs()
    first, second, again = (
        flax_calling.call(module, XS, training=True, key=jr.key(seed))[0]
        for seed in (0, 1, 0)
    )
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="rngs"):
        flax_calling.call(module, XS, training=True)


def test_a_copy_has_variables_of_its_own():
    module = user_models.make("Mlp", "flax")
    copied: Any = flax_calling.copy(module)
    copied.hidden.kernel[...] *= 0
    assert module.hidden.kernel[...].any()
    assert flax_calling.with_state(module, copied) is copied
    assert flax_calling.with_state(module, None) is module
    assert flax_calling.model_of(module) is module


@pytest.mark.parametrize(
    ("calling", "library"),
    [(equinox_calling, "equinox"), (flax_calling, "flax")],
)
def test_the_mode_is_passed_as_an_argument(calling, library):
    model = user_models.make("Trees", library)
    xs = user_models.inputs_of("Trees")
    training, _ = calling.call(model, xs, training=True)
    inference, _ = calling.call(model, xs, training=False)
    np.testing.assert_array_equal(training, 2 * inference)
