"""Loads the leaves of a run from its State, some at a time.

One program that makes all leaves would hold the old leaves, the arrays of the
State and the new leaves at once. Here each group of leaves replaces the old
one before the arrays of the next group are read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval

from common.state import GROUPS, State
from common.training.placement import Placement

SMALL = 2**26
"""Leaves of so many bytes are loaded by one program, all or none."""


class Flat(Mapping[str, Any]):
    """The arrays of a State as `State.flat` names them.

    Those of a file are mapped when they are asked for, and not all at once.
    """

    def __init__(self, state: State):
        """Keeps the State, whose arrays may be in a file."""
        self._state = state
        self._names = [
            f"{group}.{name}"
            for group in GROUPS
            for name in getattr(state, group)
        ]

    def __getitem__(self, path: str) -> Any:
        group, _, name = path.partition(".")
        found = getattr(self._state, group)
        return found[name] if name else found

    def __iter__(self) -> Iterator[str]:
        return iter([*self._names, "step"])

    def __len__(self) -> int:
        return len(self._names) + 1


def is_large(leaves: Sequence[Any]) -> bool:
    """Tells whether leaves are worth the work of loading them in groups."""
    return sum(map(nbytes, leaves)) > SMALL


def load_leaves(
    load: Callable[[list[Any], Mapping[str, Any]], list[Any]],
    leaves: list[Any],
    flat: Mapping[str, Any],
    placement: Placement,
    small: int = SMALL,
) -> None:
    """Replaces leaves in place by those that hold the arrays of a State.

    Args:
        load: makes all leaves from old ones and the arrays, as
            `PureFunctions.load` does.
        leaves: the old leaves, to which nothing else should refer.
        flat: the arrays by name, each of which is taken when it is needed.
        placement: where the leaves are to be.
        small: the bytes of leaves that are loaded at once.

    Raises:
        Exception: what JAX raises if memory runs out, for example, with a
            note that some leaves have been replaced.
    """
    try:
        _load_groups(load, leaves, flat, placement, small)
    except BaseException as error:
        error.add_note(
            "The trainer may hold some arrays of the file, and some of "
            "before. Load the file again, or another one."
        )
        raise


def _load_groups(load, leaves, flat, placement, small) -> None:
    names = sorted(flat)  # as the program's arguments are ordered
    jaxpr = jax.make_jaxpr(load)(
        [_like(x) for x in leaves], {name: _like(flat[name]) for name in names}
    )
    for group in _groups(leaves, small):
        wanted = [i in group for i in range(len(leaves))]
        part, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, wanted)
        old = [x for x, u in zip(leaves, used, strict=False) if u]
        of_state = zip(names, used[len(leaves) :], strict=True)
        needed = [name for name, u in of_state if u]
        arrays = placement.put_state({name: flat[name] for name in needed})
        where = placement.leaves
        if where is not None:
            where = [where[i] for i in group]
        function = placement.jit(
            jaxpr_as_fun(ClosedJaxpr(part, jaxpr.consts)), where
        )
        made = function(*old, *(arrays[name] for name in needed))
        for i, x in zip(group, made, strict=True):
            leaves[i] = x
        # Otherwise the arrays of the next group would be read before these
        # have been used.
        jax.block_until_ready(made)
        del old, arrays, made


def nbytes(x: Any) -> int:
    """Returns the size of an array, of whatever kind."""
    return math.prod(x.shape) * x.dtype.itemsize


def _groups(leaves: Sequence[Any], small: int) -> Iterator[list[int]]:
    """Yields the numbers of leaves of so many bytes, or of one leaf."""
    group: list[int] = []
    total = 0
    for i, size in enumerate(map(nbytes, leaves)):
        if group and total + size > small:
            yield group
            group, total = [], 0
        group.append(i)
        total += size
    if group:
        yield group


def _like(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
