"""Fingerprints of arrays."""

import numpy as np
import pytest

from common.divergence.fingerprint import fingerprint_error, take_fingerprint

RNG = np.random.default_rng(0)


def test_fingerprint_does_not_depend_on_the_layout():
    x = RNG.normal(size=(4, 5, 6))
    assert (
        fingerprint_error(
            take_fingerprint(x), take_fingerprint(x.transpose(2, 0, 1))
        )
        < 1e-12
    )
    y = x.copy()
    y[1, 2, 3] += 1e-3
    assert fingerprint_error(take_fingerprint(x), take_fingerprint(y)) > 1e-9


def test_bounded_fingerprint_reveals_one_changed_value():
    x = RNG.normal(size=100_000)
    y = x.copy()
    y[17] += 0.01
    assert len(take_fingerprint(x).ranks) < 1000
    assert fingerprint_error(take_fingerprint(x), take_fingerprint(y)) > 1e-9


@pytest.mark.parametrize(
    "other",
    [
        np.arange(12.0)[:11],
        np.arange(12),
        np.where(np.arange(12) == 3, np.nan, np.arange(12.0)),
    ],
    ids=["size", "kind", "nan"],
)
def test_error_is_infinite_for_different_kinds_of_arrays(other):
    assert (
        fingerprint_error(
            take_fingerprint(np.arange(12.0)), take_fingerprint(other)
        )
        == np.inf
    )


def test_a_mask_of_the_lowest_float_does_not_warn():
    lowest = np.full((2, 3), np.finfo(np.float64).min)
    assert np.isinf(take_fingerprint(lowest).moments).all()
