"""One model as a compiled function of its arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.agreement import EPS
from common.alignment.sides import (
    Side,
    find_needed,
    narrowest_eps,
    precise,
    projection,
    to_float64,
)
from common.native import NativeModel
from tests.alignment.models import LAYER, inputs, layer, left

XS = inputs(4, 6)


def side(function=layer, shapes=LAYER, constants=()):
    return Side("left", NativeModel(left(function, **shapes)), XS, constants)


def weights(seed, number, size=2000):
    with precise():
        return np.asarray(projection(jnp.uint32(seed), number, size))


def test_the_weights_of_a_projection_look_random():
    found = weights(0, 0, 10_000)
    assert abs(found.mean()) < 0.02 and abs(found.std() - 3**-0.5) < 0.01
    assert len(np.unique(found)) > 9_990 and np.abs(found).max() <= 1
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.05


def test_each_seed_and_output_has_its_own_weights():
    found = [weights(seed, i) for seed in (0, 1) for i in (0, 1)]
    assert np.array_equal(found[0], weights(0, 0))
    assert np.abs(np.corrcoef(found) - np.eye(4)).max() < 0.1


def test_a_run_returns_outputs_and_gradients_in_float64():
    one = side()
    one.compile()
    arrays = {n: np.asarray(x, np.float64) for n, x in one.originals.items()}
    before = {name: x.copy() for name, x in arrays.items()}
    given = dict(arrays)
    found = one.run(given, seed=3)
    assert not given and one.runs == 1 and one.shapes == [(4, 3)]
    for name, x in arrays.items():
        np.testing.assert_array_equal(x, before[name])

    def total(arrays):
        p = {name.removeprefix("p."): x for name, x in arrays.items()}
        return weights(3, 0, 12) @ layer(p, XS).reshape(-1)

    with precise():
        expected = jax.grad(total)(arrays)
    for name, x in expected.items():
        assert found.gradients[name].dtype == np.float64
        np.testing.assert_array_almost_equal(found.gradients[name], x, 12)
    assert found.is_finite


def test_values_do_not_change_when_a_run_gives_its_arrays_away():
    """What is filled in may be cached, and is used again."""
    one = side()
    one.compile()
    value = np.full((512, 512), 2.0)[:6, :6].copy()
    arrays = {n: np.asarray(x, np.float64) for n, x in one.originals.items()}
    first = one.run({**arrays, "p.w": value})
    again = one.run({**arrays, "p.w": value})
    assert (value == 2).all()
    np.testing.assert_array_equal(first.outputs[0], again.outputs[0])


def test_constants_are_no_arguments():
    one = side(constants=("p.b",))
    assert one.originals.keys() == {"p.w", "p.v"}
    assert one.constants == ("p.b",)


def test_arrays_whose_values_are_needed_are_found():
    def converted(p, x):
        return layer(p, x) * float(np.asarray(p["scale"])[0])

    one = side(converted, {**LAYER, "scale": (2,)})
    assert find_needed(one) == ["p.scale"]
    one.pin(["p.scale"])
    one.compile()
    assert one.needed == ["p.scale"] and "p.scale" in one.constants


def test_another_error_is_not_about_values():
    def broken(p, x):
        raise KeyError("no such layer")

    with pytest.raises(KeyError, match="no such layer"):
        find_needed(side(broken))


def test_the_narrowest_dtype_is_found_inside_of_loops():
    def narrow(x):
        def body(y, _):
            return y.astype(jnp.float16).astype(jnp.float64) + 1, None

        return jax.lax.scan(body, x, None, 2)[0]

    with precise():
        found = jax.make_jaxpr(narrow)(jnp.ones(3))
        plain = jax.make_jaxpr(jnp.sin)(jnp.ones(3))
    assert narrowest_eps(found) == EPS["float16"]
    assert narrowest_eps(plain) == EPS["float64"]


def test_inputs_are_wide_but_for_integers():
    found = to_float64({"x": np.ones(2, np.float32), "n": np.ones(2, int)})
    assert found["x"].dtype == np.float64 and found["n"].dtype == int
