"""The models of these tests are in float32, as JAX makes them by default."""

import jax
import pytest


@pytest.fixture(autouse=True)
def without_x64():
    with jax.enable_x64(False):
        yield
