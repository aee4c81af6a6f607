"""Data, comparisons and derivatives for tests of the definitions.

The NumPy functions in these tests are written with loops from the formulas.
They are analytic, so they also accept complex numbers, and the imaginary part
of `f(x + ih) / h` is the derivative to round-off, whatever the step size h.
"""

import numpy as np

from common.agreement import assert_close


def normal(*shape, seed=0):
    """Draws an array from N(0, 1)."""
    return np.random.default_rng(seed).normal(size=shape)


def assert_agrees(actual, expected, *, quantity="forward", what=""):
    """Asserts agreement in float64, at the tolerance of a quantity."""
    assert_close(
        actual, expected, dtype="float64", quantity=quantity, what=what
    )


def complex_step(function, x):
    """Differentiates a scalar function of an array."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        z = x.astype(np.complex128)
        z[index] += 1e-30j
        gradient[index] = function(z).imag / 1e-30
    return gradient
