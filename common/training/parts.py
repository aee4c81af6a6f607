"""A batch in parts, for gradient accumulation, and in groups, for statistics.

Parts are computed one after the other, which saves memory. Groups are
computed side by side, and each of them has batch statistics of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from common import part_keys
from common.layouts.model import is_key


def split_parts(batch: Any, parts: int) -> Any:
    """Returns the parts of a batch along a new first axis.

    Part k has the rows k, k + parts, k + 2 parts and so on. So every part of
    a batch that is sharded over devices is sharded like the batch.

    Args:
        batch: any pytree of arrays whose first axis is the example.
        parts: the number of parts, which divides the number of examples.
    """

    def split(x):
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def split_groups(xs: Any, groups: int) -> Any:
    """Returns groups of consecutive examples along a new first axis.

    Args:
        xs: any pytree of arrays whose first axis is the example.
        groups: the number of groups, which divides the number of examples.
    """
    return jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), xs)


def join_groups(ys: Any) -> Any:
    """Inverts `split_groups`.

    Raises:
        TypeError: for an array that has no axis for the example.
    """

    def join(y):
        if y.ndim < 2:
            raise TypeError(
                "outputs with sync_batch_norm=False: got a number for each "
                "device, expected arrays whose first axis is the example. "
                "Return such outputs, or leave out `sync_batch_norm`."
            )
        return y.reshape(-1, *y.shape[2:])

    return jax.tree.map(join, ys)


def mean_over_groups(arrays: Any) -> Any:
    """Returns the mean of floating arrays over their first axis.

    Counters and flags are the same in all groups, so the first is returned.
    """

    def mean(x):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.mean(x, 0, dtype=x.dtype)
        return x[0]

    return jax.tree.map(mean, arrays)


def zeros_for_sums(values: Any) -> Any:
    """Returns zeros to which the values of all parts are added.

    Args:
        values: a pytree of arrays or of their shapes and dtypes. Integers and
            flags are added up as floats, since their mean is a fraction.
    """

    def zeros(x):
        is_floating = jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.zeros(x.shape, x.dtype if is_floating else float)

    return jax.tree.map(zeros, values)


def random_of_parts(random: Any, parts: int) -> Any:
    """Returns random state for each part, along a new first axis.

    Args:
        random: any pytree. Random keys become those of a part, and other
            arrays, such as the counts of a stream, are the same in all parts.
        parts: the number of parts.
    """
    return _replace_keys(random, parts, part_keys.of_parts)


def random_of_groups(random: Any, groups: int) -> Any:
    """Returns random state for each group, along a new first axis."""
    return _replace_keys(random, groups, part_keys.of_groups)


def random_of_whole(random: Any) -> Any:
    """Returns random state of the whole batch from that of a part."""
    return jax.tree.map(
        lambda x: part_keys.whole(x) if is_key(x) else x, random
    )


def _replace_keys(
    random: Any, count: int, keys_of: Callable[[Any, int], Any]
) -> Any:
    def replace(x):
        if is_key(x):
            return keys_of(x, count)
        return jnp.broadcast_to(x, (count, *x.shape))

    return jax.tree.map(replace, random)


def average_over_parts(
    function: Callable[[Any, Any, Any], tuple[Any, Any]],
    parts: int,
    state: Any,
    batch: Any,
    random: Any,
) -> tuple[Any, Any]:
    """Averages a function over the parts of a batch, in a compiled loop.

    Args:
        function: `(state, batch, random) -> (state, values)`.
        parts: the number of parts.
        state: what a part hands on to the next one.
        batch: the whole batch.
        random: the random state of the whole batch, such as a key. Every part
            draws its share of what the whole batch draws.

    Returns:
        The state after the last part, and the mean of the values.
    """
    if parts == 1:
        return function(state, batch, random)
    xs = split_parts(batch, parts), random_of_parts(random, parts)

    def add_part(carry, part):
        state, sums = carry
        state, values = function(state, *part)
        return (state, jax.tree.map(jnp.add, sums, values)), None

    first = jax.tree.map(lambda x: x[0], xs)
    _, values = jax.eval_shape(function, state, *first)
    (state, sums), _ = lax.scan(add_part, (state, zeros_for_sums(values)), xs)
    return state, jax.tree.map(lambda x: x / parts, sums)


def call_in_groups(
    function: Callable[[Any, Any], tuple[Any, Any]],
    groups: int,
    xs: Any,
    random: Any,
) -> tuple[Any, Any]:
    """Calls a model on each group of a batch, side by side.

    Args:
        function: `(xs, random) -> (predictions, state)`.
        groups: the number of groups.
        xs: the inputs of the whole batch.
        random: the random state of the whole batch, such as a key.

    Returns:
        The predictions of the whole batch, and the states of all groups along
        a new first axis.
    """
    predictions, states = jax.vmap(function)(
        split_groups(xs, groups), random_of_groups(random, groups)
    )
    return join_groups(predictions), states
