"""Each known difference gives its hint, and no other mismatch gives it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import diff
from common.agreement import EPS
from common.comparison import hints
from common.comparison.inspection import Inspection

X = np.random.default_rng(0).normal(size=(5, 4))
W = np.random.default_rng(1).normal(size=(4, 4))


def norm(x, eps=1e-5, ddof=0):
    centered = x - x.mean(0)
    return centered * jax.lax.rsqrt(x.var(0, ddof=ddof) + eps)


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


def columns_first(x):
    return (x.reshape(-1, 2, 2).transpose(0, 2, 1).reshape(x.shape)) @ W


OPERATIONS = {
    "eps": (norm, lambda x: norm(x, 1e-6), "eps 1e-05 against 1e-06"),
    "gelu": (exact_gelu, jax.nn.gelu, "erf against tanh gelu"),
    "gelu, exchanged": (jax.nn.gelu, exact_gelu, "tanh against erf gelu"),
    "variance": (
        norm,
        lambda x: norm(x, ddof=1),
        "ratio N/(N-1) with N = 5: biased variance on the left",
    ),
    "constant": (
        lambda x: jnp.sin(0.1 * x),
        lambda x: jnp.sin(0.2 * x),
        "the constant 0.1 against 0.2 in `mul`",
    ),
    "weight": (
        lambda x: jnp.tanh(x) @ W,
        lambda x: jnp.tanh(x) @ W.T,
        "agrees after transposing the weight",
    ),
    "flattened": (
        lambda x: jnp.tanh(x) @ W,
        lambda x: columns_first(jnp.tanh(x)),
        "flattened in another order: (2, 2) with the axes (1, 0)",
    ),
}
UNRELATED = {
    "activation": (jnp.tanh, jax.nn.sigmoid),
    "activation of one family": (jax.nn.silu, exact_gelu),
    "another weight": (lambda x: x @ W, lambda x: x @ (W + W**2)),
    "a missing residual": (
        lambda x: x + jnp.tanh(x @ W),
        lambda x: jnp.tanh(x @ W),
    ),
    "sum against mean of squares": (
        lambda x: jnp.sin((x**2).sum(0)),
        lambda x: jnp.sin((x**3).sum(0)),
    ),
}


def hint_of(left, right):
    """Returns what the operations and the values of a divergence say."""
    found = diff(left, right, X)
    assert found.origins
    return hints.best("", hints.of_diff(found), hints.of_values(found))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_known_difference_is_told(name):
    left, right, hint = OPERATIONS[name]
    assert hint_of(left, right).startswith(hint)


@pytest.mark.parametrize("name", UNRELATED)
def test_another_mismatch_is_not(name):
    assert hint_of(*UNRELATED[name]) == ""


def inspections(left="float64", right="float64", draws=(None, None)):
    casts = {"float64": ""}
    return [
        Inspection(dtype, casts.get(dtype, "model.py:3 f"), draw)
        for dtype, draw in zip((left, right), draws, strict=True)
    ]


def test_a_cast_on_one_side():
    error = EPS["bfloat16"]
    found = hints.of_ceilings(
        inspections("bfloat16"), "float32", EPS["bfloat16"]
    )
    assert found == "only the left casts to bfloat16 at model.py:3 f"
    both = inspections("bfloat16", "bfloat16")
    assert hints.of_ceilings(both, "float32", error) == ""
    own = inspections("float32")
    assert hints.of_ceilings(own, "float32", EPS["float32"]) == ""
    # Rounding does not explain an error of this size.
    assert hints.of_ceilings(inspections("float32"), "float64", 0.1) == ""


def test_random_numbers_on_one_side():
    right = inspections(draws=(None, "model.py:4 f"))
    assert hints.of_draws(right) == (
        "only the right draws random numbers in inference mode at model.py:4 f"
    )
    left = inspections(draws=("", None))
    assert hints.of_draws(left).endswith(
        "only the left draws random numbers in inference mode"
    )
    assert hints.of_draws(inspections()) == ""
    assert hints.of_draws(inspections(draws=("a", "b"))) == ""


def test_updates_of_buffers():
    before = np.zeros(4), np.zeros(4)
    x = np.array([1.0, 2.0, -1.0, 0.5])
    told = hints.of_updates((x, before[1]), before)
    assert told == "the right does not update it"
    told = hints.of_updates((before[0], x), before)
    assert told == "the left does not update it"
    told = hints.of_updates(
        (0.9 + x, 0.9 + x * 6 / 5), (before[0] + 0.9, before[1] + 0.9)
    )
    assert told.startswith("ratio N/(N-1) with N = 6: biased")
    told = hints.of_updates((0.1 * x, 0.01 * x), before)
    assert told == "the left changes 10 times as much: another momentum"
    assert hints.of_updates((x, x**2), before) == ""
    assert hints.of_updates((x, x[:2]), before) == ""


def test_arrays():
    assert hints.of_arrays(X, np.zeros_like(X)).startswith("it is zero on the")
    assert "right only" in hints.of_arrays(X, np.zeros_like(X))
    assert hints.of_arrays(X, X.T) == "agrees after transposing (1, 0)"
    assert hints.of_arrays(2 * X, X) == "the left is 2 times the right"
    assert hints.of_arrays(X, X**2) == ""
    assert hints.of_arrays(X, X[:2]) == ""
    assert hints.of_weights(X, X.T) == "agrees after transposing (1, 0)"
    assert hints.of_weights(X, np.zeros_like(X)) == ""


def test_the_best_hint():
    ratio = "ratio N/(N-1) with N = 2"
    assert hints.best("arrays", "operations", "values") == "operations"
    assert hints.best(ratio, "operations", "values") == ratio
    assert hints.best("arrays", "", "values") == "arrays"
    assert hints.best("", "", "values") == "values"
