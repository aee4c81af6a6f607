"""The negative pairs differ, and the positive ones beside them do not."""

import pytest
from flax import nnx

from common.agreement import tolerance
from common.native import NativeModel
from tests.pairs.negatives import (
    BRANCHES,
    NEGATIVES,
    Negative,
    Sum,
    branches,
)
from tests.pairs.verification import errors

NAMED = [negative for negative in NEGATIVES if negative.names is not None]
SAME = Negative("same", branches, lambda: Sum(rngs=nnx.Rngs(1)), BRANCHES)


def largest_error(negative: Negative) -> float:
    layouts = negative.natural()
    assert layouts is not None
    models = NativeModel(negative.left()), NativeModel(negative.right())
    xs = negative.inputs()
    found = errors(models, layouts, (xs, xs))
    return max(e for name, e in found.items() if name.startswith("output"))


@pytest.mark.parametrize("negative", NAMED, ids=lambda x: x.name)
def test_the_natural_mapping_is_wrong(negative):
    assert largest_error(negative) > 1e3 * tolerance("float32", "forward")


def test_a_pair_without_the_difference_agrees():
    assert largest_error(SAME) <= tolerance("float64", "forward")


def test_the_other_models_run():
    for negative in NEGATIVES:
        for native in (negative.left(), negative.right()):
            model = NativeModel(native)
            outputs, _ = model.apply(model.arrays(), negative.inputs())
            assert outputs.shape == (4, 3)
