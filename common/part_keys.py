"""Random keys for a part of a batch, which draw what the whole batch draws.

A batch that is split into parts must not change the dropout masks of a run.
With `jax_threefry_partitionable`, element number i of a draw is a hash of the
key and of i. A key of this module hashes the numbers that the rows of the part
have in the whole batch, so the draws of all parts together are bit for bit
those of the whole batch, whatever the number of parts.

Which rows these are is stored in the key: row i of a draw of n rows is row
`start + stride * (group * n + i)` of the whole batch. This holds for a draw
whose first axis is the example. A scalar is drawn as for the whole batch. Any
other draw, such as noise for a weight, is another one in every part.
"""

from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Key, PRNGKeyArray, UInt32

KEY_WORDS = 2
"""The number of words of a threefry key. Three follow: see above."""
WHOLE = (0, 1, 0)
"""The start, the stride and the group of the whole batch."""
THREEFRY = "threefry2x32"


def of_parts(key: PRNGKeyArray, parts: int) -> Key[Array, " parts"]:
    """Returns the keys of the parts of a batch, where part k has the rows k,
    k + parts, k + 2 parts and so on.

    Args:
        key: a key of the whole batch.
        parts: the number of parts.

    Raises:
        ValueError: if it is not a threefry key.
    """
    words = _words(key)
    numbers = jnp.arange(parts, dtype=jnp.uint32)
    words = jnp.tile(words, (parts, 1)).at[:, KEY_WORDS].set(numbers)
    return _wrap(words.at[:, KEY_WORDS + 1].set(parts))


def of_groups(key: PRNGKeyArray, groups: int) -> Key[Array, " groups"]:
    """Returns the keys of groups of consecutive rows, all of one size.

    Args:
        key: a key of the whole batch, or of a part of it.
        groups: the number of groups.

    Raises:
        ValueError: if it is not a threefry key.
    """
    numbers = jnp.arange(groups, dtype=jnp.uint32)
    words = jnp.tile(_words(key), (groups, 1))
    return _wrap(words.at[:, KEY_WORDS + 2].set(numbers))


def whole(key: PRNGKeyArray) -> PRNGKeyArray:
    """Returns the key of the whole batch from that of a part or a group."""
    if not _is_of_part(key):
        return key
    return jr.wrap_key_data(jr.key_data(key)[..., :KEY_WORDS], impl=THREEFRY)


def split_over_examples(
    key: PRNGKeyArray, examples: int
) -> Key[Array, " examples"]:
    """Returns a key for each example: `jr.split`, also for a part.

    `jr.split` itself does not know whether the new keys are for examples, so
    of the key of a part it returns keys of the same part.

    Args:
        key: a key of a batch, or of a part of it.
        examples: the number of examples in the batch or part.
    """
    if not _is_of_part(key):
        return jr.split(key, examples)
    words = jr.key_data(key)
    pair = _hash(words, *_numbers(words, (examples,)))
    return jr.wrap_key_data(jnp.stack(pair, -1), impl=THREEFRY)


def _is_of_part(key: PRNGKeyArray) -> bool:
    return jr.key_impl(key) == PART


def _words(key: PRNGKeyArray) -> UInt32[Array, "5"]:
    if _is_of_part(key):
        return jr.key_data(key)
    if jr.key_impl(key) != THREEFRY:
        raise ValueError(
            f"random key: got {jr.key_impl(key)}, expected {THREEFRY}, in "
            "which a part of a batch can draw the numbers of the whole. Set "
            f'`jax.config.update("jax_default_prng_impl", "{THREEFRY}")`.'
        )
    return _with(jr.key_data(key), jnp.array(WHOLE, jnp.uint32))


def _with(
    key: UInt32[Array, "*N 2"], rows: UInt32[Array, "3"]
) -> UInt32[Array, "*N 5"]:
    rows = jnp.broadcast_to(rows, (*key.shape[:-1], *rows.shape))
    return jnp.concatenate([key, rows], -1)


def _wrap(words: Any) -> Any:
    return jr.wrap_key_data(words, impl=PART)


def _threefry(words: UInt32[Array, "5"]) -> PRNGKeyArray:
    return jr.wrap_key_data(words[:KEY_WORDS], impl=THREEFRY)


# --- the functions of a PRNG implementation ---------------------------------


def _seed(seed: Array) -> UInt32[Array, "5"]:
    words = jr.key_data(jr.key(seed, impl=THREEFRY))
    return _with(words, jnp.array(WHOLE, jnp.uint32))


def _split(
    words: UInt32[Array, "5"], shape: tuple[int, ...]
) -> UInt32[Array, "*N 5"]:
    keys = jr.key_data(jr.split(_threefry(words), shape))
    return _with(keys, words[KEY_WORDS:])


def _fold_in(words: UInt32[Array, "5"], data: Any) -> UInt32[Array, "5"]:
    key = jr.key_data(jr.fold_in(_threefry(words), data))
    return _with(key, words[KEY_WORDS:])


def _random_bits(
    words: UInt32[Array, "5"], bit_width: int, shape: tuple[int, ...]
) -> Array:
    dtype = jnp.dtype(f"uint{bit_width}")
    if not shape:
        return jr.bits(_threefry(words), shape, dtype)
    high, low = _hash(words, *_numbers(words, shape))
    if bit_width == 64:
        return high.astype(dtype) << 32 | low.astype(dtype)
    return (high ^ low).astype(dtype)


def _hash(
    words: UInt32[Array, "5"], high: Array, low: Array
) -> tuple[Array, Array]:
    """Applies threefry to 64-bit numbers in two words."""
    first, second = (
        jnp.broadcast_to(x, high.shape) for x in words[:KEY_WORDS]
    )
    return tuple(jex.random.threefry2x32_p.bind(first, second, high, low))


def _numbers(
    words: UInt32[Array, "5"], shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Numbers the elements of a draw as in the whole batch, in two words."""
    start, stride, group = words[KEY_WORDS:]
    size = 1
    column = jnp.zeros(shape, jnp.uint32)
    for axis in reversed(range(1, len(shape))):
        iota = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        column = column + iota * jnp.uint32(size)
        size *= shape[axis]
    row = jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    row = start + stride * (group * jnp.uint32(shape[0]) + row)
    high, low = multiply(row, size)
    low = low + column
    return high + (low < column), low


def multiply(x: UInt32[Array, "*S"], y: int) -> tuple[Array, Array]:
    """Multiplies without a 64-bit dtype.

    Args:
        x: any 32-bit numbers.
        y: a 32-bit number.

    Returns:
        The upper and the lower 32 bits of the product.
    """
    y_high, y_low = (jnp.uint32(part) for part in divmod(y, 2**16))
    x_high, x_low = x >> 16, x & 0xFFFF
    lowest = x_low * y_low
    middle = x_high * y_low + (lowest >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    high = x_high * y_high + (middle >> 16) + (other >> 16)
    return high, (other << 16) | (lowest & 0xFFFF)


PART: Any = jex.random.define_prng_impl(
    key_shape=(KEY_WORDS + len(WHOLE),),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_part",
    tag="part",
)
"""The implementation of the keys of this module."""
