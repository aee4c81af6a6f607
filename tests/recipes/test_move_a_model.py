"""A trained model moves from one library to the other, or is refused."""

import jax
import jax.random as jr
import numpy as np
import pytest

from common import EquivalenceError
from impl_equinox.recipes import move_a_model as in_equinox
from impl_flax.recipes import move_a_model as in_flax


def test_a_trained_model_moves_there_and_back_or_is_refused():
    data_key, *keys = jr.split(jr.key(0), 5)
    xs = jr.normal(data_key, (16, 3))
    model, state = in_equinox.train(keys[0], xs)
    module = in_flax.receive(keys[1], (model, state), xs)
    again, _ = in_equinox.receive(keys[2], module, xs)
    for x, y in zip(*map(jax.tree.leaves, (model, again)), strict=True):
        np.testing.assert_array_equal(x, y)

    module.norm.epsilon = 1e-3
    with pytest.raises(EquivalenceError, match="eps"):
        in_equinox.receive(keys[3], module, xs)
