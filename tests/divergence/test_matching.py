"""Matching values in any layout."""

import numpy as np

from common.divergence.matching import find_axis_order

RNG = np.random.default_rng(0)


def test_arrangement():
    x = RNG.normal(size=(2, 3, 4))
    assert find_axis_order(x, x.transpose(2, 0, 1), 1e-12) == (2, 0, 1)
    assert find_axis_order(x, x.reshape(6, 4), 1e-12) is not None
    assert find_axis_order(x.transpose(0, 2, 1), x.reshape(2, 12), 1e-12)
    assert find_axis_order(x, x[:, ::-1], 1e-12) is None
