"""Both models are functions of the left's trained arrays."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from common.comparison import halves
from common.porting.arithmetic import Divide
from tests.comparison.duelists import LABELS, MAPPING, XS, models


def make(mapping=MAPPING, dtype="float64"):
    return halves.make_halves(models(), (None, None), LABELS, mapping, dtype)


def test_the_right_is_called_with_what_the_mapping_makes():
    left, right = make()
    assert left.trained.keys() == {"w"} and left.rest.keys() == {"seen"}
    assert right.rest.keys() == {"total", "count"}
    trained = {"w": left.trained["w"] + 1}
    arrays = right.arrays(trained, right.rest)
    assert np.array_equal(arrays["kernel"], trained["w"].T)
    outputs = [half.infer(trained, half.rest, XS)[0] for half in (left, right)]
    np.testing.assert_array_almost_equal(*outputs, decimal=14)


def test_floating_arrays_have_the_dtype_of_the_comparison():
    for dtype in ("float64", "float32"):
        left, right = make(dtype=dtype)
        assert left.trained["w"].dtype == dtype
        assert right.arrays(left.trained, right.rest)["kernel"].dtype == dtype
        assert right.rest["count"].dtype == jnp.int32


def test_buffers_start_from_those_of_the_left():
    left, right = models()
    left.native.seen[...] = jnp.array([3.0, 4.0])
    _, half = halves.make_halves(
        (left, right), (None, None), LABELS, MAPPING, "float64"
    )
    assert half.rest["total"].tolist() == [3.0, 4.0]
    assert right.native.total[...].tolist() == [0.0, 0.0]


def test_derived_arrays_have_their_value():
    mapping = dataclasses.replace(MAPPING, derived={"count": 7})
    _, right = make(mapping)
    count = np.asarray(right.rest["count"])
    assert count == 7 and count.dtype == np.int32


def test_only_buffers_that_are_carried_over_are_compared():
    left, right = make()
    assert halves.comparable_rest(MAPPING, left, right) == ["total"]
    total = MAPPING.layouts["total"].then(Divide(2.0))
    mapping = dataclasses.replace(
        MAPPING, layouts={**MAPPING.layouts, "total": total}
    )
    assert halves.comparable_rest(mapping, *make(mapping)) == []


def test_a_call_in_training_mode_returns_new_buffers():
    left, _ = make()
    arrays = left.arrays(left.trained, left.rest)
    outputs, rest = left.apply(arrays, XS, training=True)
    assert rest.keys() == {"seen"}
    mean = np.mean(XS @ np.asarray(left.trained["w"]).T, axis=0)
    np.testing.assert_array_almost_equal(rest["seen"], mean, decimal=14)
    _, before, after = left.infer(left.trained, left.rest, XS)
    assert np.array_equal(before["seen"], after["seen"])
    assert outputs.shape == (4, 2)


def test_arrays_that_are_not_updated_can_be_held():
    mapping = dataclasses.replace(
        MAPPING, layouts={"total": MAPPING.layouts["total"]}
    )
    _, right = make(mapping)
    assert right.rest.keys() == {"kernel", "total", "count"}
    assert right.hold() and right.held == ["kernel"]
    assert right.rest.keys() == {"total", "count"}


def test_integers_on_the_host_are_wide():
    found = halves.host({"a": jnp.ones(2, jnp.int32), "b": jnp.ones(2)})
    assert found["a"].dtype == np.int64 and found["b"].dtype == np.float64
