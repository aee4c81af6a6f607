"""Fixtures for the tests of the known differences."""

import pytest

from common.differences import KnownDifference, known_differences


@pytest.fixture
def row() -> KnownDifference:
    """A known difference whose quantity is a number."""
    rows = {row.name: row for row in known_differences()}
    return rows["batch-norm-ema-train"]
