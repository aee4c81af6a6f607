"""Tests of what names match without rules."""

import numpy as np
import pytest
from flax import nnx

from common.porting import port


class Numbered(nnx.Module):
    def __init__(self, first):
        for i in range(first, first + 4):
            layer = nnx.Linear(3, 3, rngs=nnx.Rngs(i))
            setattr(self, f"layer{i}", layer)


def test_numbers_are_never_shifted():
    with pytest.raises(ValueError) as caught:
        port(Numbered(1), Numbered(0))
    message = str(caught.value)
    for i in range(5):
        assert (f"source layer{i}.kernel (3, 3)" in message) == (i > 0)
        assert (f"target layer{i}.kernel (3, 3)" in message) == (i < 4)
    rules = "  layer{i+1}.kernel -> layer{i}.kernel"
    assert rules in message and "layer{i+1}.bias -> layer{i}.bias" in message
    assert "`align(source, target, x)`" in message and "`diff`" in message
    source, target = Numbered(1), Numbered(0)
    port(source, target, rules="layer{i+1} -> layer{i}")
    assert np.array_equal(target.layer0.kernel[...], source.layer1.kernel[...])
