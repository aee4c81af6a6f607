"""`diff_steps` compares a training step of two trainers."""

import pytest

from common import diff_steps
from common.errors import StateError
from tests.divergence.programs import (
    first,
)


def test_wrong_eps_is_found_in_a_whole_step(make, make_batch):
    """The first step of Adam hides the scale of a gradient.

    The moments of the optimizer still reveal it.
    """
    left = make("deep_mlp", "equinox")
    right = make("deep_mlp", "flax")
    xs, ys = make_batch(left.spec)
    assert diff_steps(left, right, xs, ys).ok
    found = diff_steps(left, make("deep_mlp", "flax", eps=1e-3), xs, ys)
    assert not found.ok
    literals = [float(node.literals[0]) for node in first(found)]
    assert literals == [left.spec.eps, 1e-3]
    assert found.origins[0].error


def test_trainers_of_different_models_are_refused(make, make_batch):
    left = make("deep_mlp", "equinox")
    xs, ys = make_batch(left.spec)
    with pytest.raises(StateError, match="got nothing, expected"):
        diff_steps(left, make("stateful_mlp", "flax"), xs, ys)
