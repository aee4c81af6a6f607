"""Keys of parts and groups: together they draw what the whole batch draws."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from common import part_keys

SIZE = 12


def draw(key, size):
    """Draws as models do: from keys that were split or folded."""
    first, second = jr.split(key, 2)
    folded = jr.fold_in(first, 7)
    return {
        "mask": jr.bernoulli(second, 0.3, (size, 3, 2)),
        "float64": jr.uniform(folded, (size, 5), "float64"),
        "uint8": jr.bits(folded, (size, 3), "uint8"),
        "keys": jr.key_data(part_keys.split_over_examples(first, size)),
    }


@jax.jit
def draw_all(key):
    """Draws for the whole batch, for its parts, and for their groups."""

    def groups(part):
        keys = part_keys.of_groups(part, 2)
        return jax.vmap(lambda key: draw(key, 2))(keys)

    parts = part_keys.of_parts(key, 3)
    folded = jax.vmap(jr.fold_in, (None, 0))(key, jnp.arange(3))
    return (
        draw(key, SIZE),
        jax.vmap(lambda key: draw(key, 4))(parts),
        jax.vmap(groups)(parts),
        jax.vmap(lambda key: draw(key, 4))(folded),
    )


def test_parts_draw_what_the_whole_batch_draws():
    whole, parts, groups, folded = draw_all(jr.key(3))
    for name, x in whole.items():
        rows = np.swapaxes(np.reshape(x, (4, 3, *x.shape[1:])), 0, 1)
        assert np.array_equal(parts[name], rows), name
        assert np.array_equal(np.reshape(groups[name], rows.shape), rows), name
        assert not np.array_equal(folded[name], rows), name  # it can fail


def test_a_scalar_is_that_of_the_whole_batch():
    part = part_keys.of_parts(jr.key(3), 2)[1]
    assert jr.uniform(part) == jr.uniform(jr.key(3))
    assert part_keys.whole(part) == jr.key(3)
    assert part_keys.whole(jr.key(3)) == jr.key(3)


def test_rows_are_numbered_beyond_32_bits():
    x = np.random.default_rng(0).integers(0, 2**32, 50, np.uint64)
    for y in (1, 2**16 - 1, 2**16, 2**32 - 1):
        high, low = part_keys.multiply(jnp.asarray(x, jnp.uint32), y)
        found = np.asarray(high, np.uint64) << np.uint64(32)
        assert np.array_equal(found | np.asarray(low), x * np.uint64(y))


def test_keys_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="random key: got rbg, expected"):
        part_keys.of_parts(jr.key(0, impl="rbg"), 2)
