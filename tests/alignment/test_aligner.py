"""Models of another width are refused before anything is tried."""

import jax.numpy as jnp
import pytest

from common.alignment import AlignmentError
from tests.alignment.models import aligned, inputs


def layers(p, x):
    for i in range(3):
        x = x + jnp.tanh(x @ p[f"w{i}"] + p[f"b{i}"]) @ p[f"v{i}"]
    return x


def shapes(width):
    return {
        name: shape
        for i in range(3)
        for name, shape in {
            f"w{i}": (5, width),
            f"b{i}": (width,),
            f"v{i}": (width, 5),
        }.items()
    }


@pytest.mark.parametrize(("left", "right"), [(8, 11), (12, 8)])
def test_another_width_is_refused_at_once(left, right):
    with pytest.raises(AlignmentError) as caught:
        aligned((layers, layers), (shapes(left), shapes(right)), inputs(3, 5))
    assert caught.value.alignment.cost.cuts <= 2
    text = " ".join(str(caught.value).split())
    assert "no way to cut the arrays gives each of them a counterpart" in text
    assert f"one side lacks: left [{left}], right [{right}]" in text
    for name in shapes(left):
        assert text.count(f"p.{name}") >= 2
    assert max(map(len, str(caught.value).splitlines()[1:])) <= 80


def normalized(p, x):
    x = x @ p["in"]
    for i in range(2):
        x = x / (1 + jnp.std(x)) + jnp.tanh(x @ p[f"w{i}"])
    return x @ p["out"]


def square(width):
    layers = {f"w{i}": (width, width) for i in range(2)}
    return {"in": (5, width), **layers, "out": (width, 5)}


def test_a_width_that_could_be_cut_is_refused_early():
    with pytest.raises(AlignmentError) as caught:
        aligned(
            (normalized, normalized), (square(16), square(8)), inputs(3, 5)
        )
    assert caught.value.alignment.cost.cuts < 50
