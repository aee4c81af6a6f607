"""Data for the tests of `fit` and of its loop."""

import pytest

from tests.training.runs import SIZE


@pytest.fixture
def data(make, make_batch):
    return make_batch(make("deep_mlp", "reference").spec, size=SIZE)
