"""The losses of models without a trainer."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.agreement import assert_close
from common.comparison.objectives import (
    cross_entropy,
    find_objective,
    mean_squared_error,
    projection,
)

X = np.arange(6.0).reshape(3, 2)


def test_the_loss_that_is_chosen():
    assert find_objective(None, None)[0] is projection
    assert find_objective(None, X)[0] is mean_squared_error
    assert find_objective(None, np.arange(3))[0] is cross_entropy
    assert find_objective(None, [X, np.arange(3)])[0] is mean_squared_error
    assert find_objective("mse", X)[1] == "mse"
    assert find_objective(projection, None) == (projection, "projection")


def test_a_name_needs_targets():
    with pytest.raises(ValueError, match="ys: got None and the loss 'mse'"):
        find_objective("mse", None)


def test_the_projection_sees_every_element():
    base = projection({"a": X, "b": X[0]}, None)
    for i in range(X.size):
        other = X.copy()
        other.flat[i] += 1
        assert projection({"a": other, "b": X[0]}, None) != base
    assert projection({"a": X, "b": np.arange(2)}, None) == projection(
        {"a": X}, None
    )


def test_the_losses_add_their_leaves():
    assert mean_squared_error([X, X], [X + 1, X + 2]) == 1 + 4
    logits = jnp.zeros((3, 4))
    found = cross_entropy([logits, logits], [np.zeros(3, int)] * 2)
    assert_close(
        found, jnp.asarray(2 * np.log(4)), dtype="float64", quantity="loss"
    )


def test_a_target_for_each_output_is_needed():
    with pytest.raises(ValueError, match="ys: got 1 arrays, expected 2"):
        mean_squared_error((X, X), X)
