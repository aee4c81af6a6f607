"""The drawn architectures are the same function under their mapping."""

import hypothesis
import pytest

from common.agreement import tolerance
from tests.conftest import many_draws
from tests.pairs.architectures import architectures, broken_architectures
from tests.pairs.bank import Pair
from tests.pairs.verification import errors


def wrong(pair: Pair) -> dict[str, float]:
    found = errors(pair.models(), pair.layouts(), pair.batches())
    return {
        name: error
        for name, error in found.items()
        if not error <= tolerance("float64", "gradients")
    }


@hypothesis.settings(max_examples=1)
@hypothesis.given(architectures())
def test_a_few_architectures_are_the_same_function(pair):
    assert wrong(pair) == {}


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(1 / 4))
@hypothesis.given(architectures())
def test_architectures_are_the_same_function(pair):
    assert wrong(pair) == {}


@hypothesis.settings(max_examples=1)
@hypothesis.given(broken_architectures())
def test_a_few_broken_architectures_are_not(pair):
    assert wrong(pair)


@pytest.mark.exhaustive
@hypothesis.settings(max_examples=many_draws(1 / 4))
@hypothesis.given(broken_architectures())
def test_broken_architectures_are_not(pair):
    assert wrong(pair)
