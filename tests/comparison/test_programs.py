"""What is compiled of each model takes the steps that it should."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.agreement import EPS
from common.comparison.halves import make_halves
from common.comparison.programs import Program, Run, nudge, without_noise
from tests.comparison.duelists import LABELS, MAPPING, XS, YS, loss, models

RATE = 0.5


def program(side=0, xs=XS, **fault):
    both = make_halves(
        models(**fault), (None, None), LABELS, MAPPING, "float64"
    )
    side_name = ("left", "right")[side]
    return Program(both[side], side_name, (xs, YS), loss, optax.sgd(RATE))


def test_a_step_is_that_of_the_optimizer():
    one = program()
    one.trace_step(True, EPS["float64"])
    one.compile()
    run = Run(one, one.half.trained)
    w = np.asarray(one.half.trained["w"])
    value, outputs = run.step()
    gradient = jax.grad(lambda w: loss(jnp.tanh(XS @ w.T), YS))(w)
    np.testing.assert_array_almost_equal(run.gradients["w"], gradient, 14)
    np.testing.assert_array_almost_equal(
        run.trained["w"], w - RATE * gradient, 14
    )
    expected = loss(np.tanh(XS @ w.T), YS)
    np.testing.assert_array_almost_equal(value, expected, 14)
    assert outputs.keys() == {"outputs"}
    assert np.asarray(run.rest["seen"]).any()
    predicted, changed = run.infer()
    np.testing.assert_array_almost_equal(
        predicted["outputs"], np.tanh(XS @ np.asarray(run.trained["w"]).T), 14
    )
    assert changed == []


def test_arrays_that_inference_changes_are_named():
    one = program(1, overwrites=True)
    one.trace_step(False, EPS["float64"])
    one.compile()
    assert Run(one, one.half.trained).infer()[1] == ["total"]


def test_a_model_that_cannot_be_traced_is_named():
    with pytest.raises(TypeError, match="right model: got .* while tracing"):
        program(1, xs=XS[:, :2])


def test_arrays_on_which_the_outputs_depend_are_held():
    assert program().held() == {}


def test_noise_in_gradients_is_zero():
    eps = EPS["float64"]
    gradients = {"a": jnp.array([1.0, eps]), "b": jnp.array([-3 * eps])}
    found = without_noise(gradients, eps)
    assert found["a"].tolist() == [1.0, 0.0] and found["b"].tolist() == [0.0]
    small = {"b": jnp.array([-3 * eps])}  # the largest one is no noise
    assert without_noise(small, eps)["b"].tolist() == [-3 * eps]
    assert without_noise({}, eps) == {}


def test_every_element_is_nudged():
    x = jnp.full(64, 3.0)
    found = np.asarray(nudge({"x": x}, 1e-3)["x"]) / 3
    assert set(np.round(found, 6)) == {0.999, 1.001}
