"""Finds subtrees whose arrays are stacks of layers."""

import collections
from collections.abc import Iterator

from common.alignment.arrangement import Arrangement, without_numbers
from common.alignment.pieces import Piece, unstack


def unstacked(arrangement: Arrangement) -> Iterator[Arrangement]:
    """Yields arrangements in which a stack of layers is taken apart.

    All arrays of a subtree have the same leading axis. The other side has as
    many arrays of one name, up to its numbers, or more of the pieces have a
    counterpart once the stack is taken apart: a list may be kept under names
    that have nothing in common.
    """
    for side, half in enumerate(arrangement.halves):
        if not arrangement.surplus[side]:
            continue
        lists = _list_lengths(arrangement.halves[1 - side].pieces)
        by_prefix: dict[tuple[str, ...], list[Piece]] = (
            collections.defaultdict(list)
        )
        for piece in half.pieces:
            words = piece.array.split(".")
            for i in range(len(words)):
                by_prefix[tuple(words[:i])].append(piece)
        seen: set[frozenset[Piece]] = set()
        for prefix in sorted(by_prefix, key=len):
            pieces = by_prefix[prefix]
            leading = {piece.shape[:1] for piece in pieces}
            if (
                len(pieces) < 2
                or len(leading) != 1
                or not pieces[0].shape
                or frozenset(pieces) in seen
            ):
                continue
            (size,) = pieces[0].shape[:1]
            if size < 2:
                continue
            seen.add(frozenset(pieces))
            name = ".".join(prefix) or "the model"
            new = arrangement.replace(
                side,
                half.split({p: unstack(p, 0) for p in pieces}),
                f"{name}: stack of {size} layers",
            )
            if size in lists or new.missing() < arrangement.missing():
                yield new


def _list_lengths(pieces: tuple[Piece, ...]) -> set[int]:
    """Returns how many arrays have each name, up to its numbers."""
    lengths: set[int] = set()
    counts = collections.Counter(without_numbers(p.array) for p in pieces)
    lengths |= set(counts.values())
    # Lists within lists: the number of different values of each number.
    values = collections.defaultdict(set)
    for piece in pieces:
        words = piece.array.split(".")
        for i, word in enumerate(words):
            if word.isdigit():
                name = without_numbers(".".join(words[:i]))
                values[name].add(word)
    return lengths | {len(found) for found in values.values()}
