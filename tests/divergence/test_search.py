"""`diff` finds where two programs diverge.

The planted faults are in `test_mutations.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from common import diff
from tests.divergence.programs import (
    RNG,
    W,
    X,
    fast_norm,
    first,
    line_of,
    named_lines,
    norm,
)


def test_the_same_mathematics_agrees():
    found = diff(norm, fast_norm, X)
    assert found.ok and not found.origins
    assert "All outputs agree" in str(found)


def test_eps_is_named_with_both_literals():
    found = diff(norm, lambda x: fast_norm(x, eps=1e-6), X)
    assert not found.ok
    assert named_lines(found) == (
        line_of(norm, "var + eps"),
        line_of(fast_norm, "var + eps"),
    )
    text = str(found)
    assert "add, literal 1e-05, float64[3,1]" in text
    assert "add, literal 1e-06, float64[3,1]" in text
    assert f"programs.py:{line_of(norm, 'var + eps')} norm" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_iteration_of_a_scan_is_named():
    weights = RNG.normal(size=(3, 4, 4))
    others = weights.copy()
    others[1] *= 1.01

    def scanned(x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(layer, x, jnp.asarray(weights))[0]

    def listed(x):
        for w in others:
            x = jnp.tanh(x @ w)
        return x

    found = diff(scanned, listed, X)
    assert first(found)[0].primitive == "dot_general"
    assert first(found)[0].iterations == (1,)
    assert "iteration 1" in str(found)


def test_loops_and_branches_are_followed():
    def rolled(x):
        x = jax.lax.fori_loop(0, 3, lambda i, x: x * 2, x)
        return jax.lax.cond(x[0, 0] > -1e9, jnp.sin, jnp.cos, x)

    assert diff(rolled, lambda x: jnp.sin(x * 8), X).ok
    found = diff(rolled, lambda x: jnp.cos(x * 8), X)
    assert [first(found)[0].primitive] == ["sin"]
    assert [first(found)[1].primitive] == ["cos"]


def test_values_match_in_other_layouts():
    def first(x):
        return jnp.tanh(x.T @ jnp.ones((3, 2)))

    assert diff(first, lambda x: jnp.tanh(jnp.ones((2, 3)) @ x).T, X).ok
    # The order of axes may differ in the outputs too.
    assert diff(first, lambda x: jnp.tanh(jnp.ones((2, 3)) @ x), X).ok


def test_permuted_values_do_not_agree():
    """Sorted values are the same, so fingerprints cannot see it."""
    found = diff(lambda x: x @ W, lambda x: (x @ W)[:, ::-1], X)
    assert not found.ok
    found = diff(
        lambda x: jnp.tanh(x.reshape(2, 6)),
        lambda x: jnp.tanh(x.T.reshape(2, 6)),
        X,
    )
    assert not found.ok
    assert first(found)[1].primitive == "reshape"


def test_transposed_square_weight_is_found_where_it_is_used():
    found = diff(lambda x: x @ W, lambda x: x @ W.T, X)
    assert first(found)[0].primitive == "dot_general"


def test_fault_in_the_backward_pass_is_found():
    def loss(x):
        return jnp.sum(norm(x) ** 3)

    def stopped(x):
        mean = jax.lax.stop_gradient(jnp.mean(x, -1, keepdims=True))
        var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
        return jnp.sum(((x - mean) / jnp.sqrt(var + 1e-5)) ** 3)

    assert diff(loss, stopped, X).ok
    found = diff(jax.grad(loss), jax.grad(stopped), X)
    assert not found.ok and found.origins


def test_different_random_keys_are_found():
    key = jax.random.key(0)

    def drop(x, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)

    def split(x, key):
        return drop(x, jax.random.split(key, 1)[0])

    assert diff(drop, drop, X, key).ok
    assert not diff(drop, split, X, key).ok


def test_updated_value_that_is_not_returned_is_found():
    """Updated statistics are computed but not returned."""
    found = diff(
        lambda x, m: (x - m, 0.9 * m + 0.1 * jnp.mean(x, 0)),
        lambda x, m: (x - m, (m, 0.9 * m + 0.1 * jnp.mean(x, 0))[0]),
        X,
        np.ones(4),
    )
    assert [output.path for output in found.outputs if not output.ok] == [
        "[1]"
    ]
    assert found.origins


def test_the_precision_ceiling_is_named():
    def narrow(x):
        return norm(x.astype(jnp.bfloat16).astype(x.dtype))

    found = diff(norm, narrow, X)
    assert not found.ok
    left, right = found.ceilings
    assert left is None and right is not None
    assert right.dtype == "bfloat16"
    assert "precision ceiling of the right: bfloat16" in str(found)
    # With the same casts in both, they agree within that precision.
    both = diff(narrow, narrow, X)
    assert both.ok and both.ceilings[0] is not None
    assert both.ceilings[0].dtype == "bfloat16"


def test_the_first_nan_of_one_side_is_named():
    def root(x):
        y = x - 1
        return jnp.sqrt(y) * 2

    found = diff(lambda x: jnp.sqrt(jnp.abs(x)) * 2, root, X)
    assert found.origins[0].reason == "the first NaN"
    node = found.origins[0].right
    assert node is not None and node.primitive == "sqrt"
    assert node.frames[0].line == line_of(root, "sqrt(y)")


def test_text_says_what_is_not_compared():
    def printing(x):
        jax.debug.print("{}", x[0, 0])
        return x * 2

    found = diff(printing, lambda x: x + x, X)
    assert found.ok
    assert "is not compared" in str(found)


def test_float32_arguments_are_cast_to_float64_by_default():
    x = X.astype(np.float32)
    assert diff(norm, lambda x: norm(x, 1.01e-5), x).ok is False
    assert diff(norm, fast_norm, x, dtype=None).ok
    found = diff(norm, norm, x, dtype=None)
    assert found.outputs[0].left.dtype == "float32"


def test_memory_is_bounded():
    """Beyond the budget only fingerprints are kept."""
    found = diff(norm, lambda x: norm(x, 1e-6), X, kept=100)
    kept = [n for r in found.records for n in r.nodes if n.value is not None]
    assert sum(node.value.nbytes for node in kept) <= 200
    assert first(found)[0].primitive == "add"


def test_a_clip_that_leaves_a_value_as_it_is_hides_nothing():
    """What a matched norm is computed from is no origin of a wrong loss."""

    def clipped_norm(x):
        centered = x - x.mean(-1, keepdims=True)
        total = jnp.maximum((centered**2).sum(-1, keepdims=True), 0)
        return centered / jnp.sqrt(total / x.shape[-1] + 1e-5)

    def loss(call, factor):
        return jax.value_and_grad(
            lambda x: factor * jnp.mean((call(x) @ W) ** 2)
        )

    assert diff(loss(clipped_norm, 1.0), loss(fast_norm, 1.0), X).ok
    found = diff(loss(clipped_norm, 1.0), loss(fast_norm, 0.5), X)
    lefts = [origin.left for origin in found.origins if origin.left]
    assert lefts and not [
        node
        for node in lefts
        if node.primitive == "integer_pow" and node.shape == X.shape
    ]


def test_input_of_one_program_only_is_named():
    found = diff(jnp.matmul, jnp.matmul, X, W, right_args=(X, 1.5 * W))
    reason = found.origins[0].reason
    assert reason == "only the left has args[1]; only the right has args[1]"
    assert reason in str(found)


def test_text_says_that_equal_outputs_differ_in_shape():
    found = diff(lambda x: x.reshape(4, 3), lambda x: x, X)
    assert found.ok
    assert "has the shape (4, 3) on the left and (3, 4)" in str(found)
