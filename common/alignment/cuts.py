"""Ways to cut arrays such that more pieces have a counterpart."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from common.alignment.arrangement import Arrangement, without_numbers
from common.alignment.fill import Dims, dims_of
from common.alignment.merges import merged_shapes
from common.alignment.pieces import Piece, Split, cut, reshape, unstack

CHOICES = 8
"""How many choices of the pieces to cut are tried."""
ORDERS = 12
"""How many orders of the parts of an axis are tried."""
ZEROS = 2
"""How many parts of an axis may be without a counterpart."""

Counts = Mapping[Dims, int]
Found = tuple[str, dict[Piece, Split], tuple[Piece, ...], int]
"""What is done, the splits by piece, the parts that are zero, and how many
likelier ways there are."""


def alternatives(arrangement: Arrangement) -> Iterator[Arrangement]:
    """Yields arrangements with fewer pieces without a counterpart.

    The pieces of one class of which one side has more are cut: of the largest
    class for which there is a way. Or pieces of any class keep their values.
    """
    classes = [
        (side, dims)
        for side, surplus in enumerate(arrangement.surplus)
        for dims in surplus
    ]
    classes.sort(key=_size_of, reverse=True)
    for side, dims in classes:
        found = False
        for new in _cuts_of(arrangement, side, dims):
            found = True
            yield new
        if found:
            break
    for side, dims in classes:
        half = arrangement.halves[side]
        for pieces in _choices(arrangement, side, dims):
            note = f"{_label(pieces)}: kept, no counterpart"
            yield arrangement.replace(side, half.keep(pieces), note)
    for _, dims in classes:
        yield from _keep_class(arrangement, dims)


def _size_of(found: tuple[int, Dims]) -> tuple[int, int]:
    return len(found[1]), math.prod(found[1])


def _choices(
    arrangement: Arrangement, side: int, dims: Dims
) -> list[list[Piece]]:
    count = arrangement.surplus[side][dims]
    pieces = arrangement.halves[side].pieces
    return choose_pieces(pieces, dims, count)[:CHOICES]


def _cuts_of(
    arrangement: Arrangement, side: int, dims: Dims
) -> Iterator[Arrangement]:
    """Yields the ways to cut the pieces of a class."""
    other = arrangement.surplus[1 - side]
    half = arrangement.halves[side]
    for pieces in _choices(arrangement, side, dims):
        for note, splits, zero, doubt in ways_to_cut(pieces, other):
            new = arrangement.replace(
                side, half.split(splits, zero), f"{_label(pieces)}: {note}"
            )
            yield dataclasses.replace(new, doubt=arrangement.doubt + doubt)


def _keep_class(arrangement: Arrangement, dims: Dims) -> Iterator[Arrangement]:
    """Keeps the pieces of a class on both sides, if both have some."""
    chosen = [
        [p for p in half.pieces if p.dims == dims]
        for half in arrangement.halves
    ]
    if not all(chosen):
        return
    for side, pieces in enumerate(chosen):
        half = arrangement.halves[side].keep(pieces)
        arrangement = arrangement.replace(
            side, half, f"{_label(pieces)}: kept, as all of this class"
        )
    yield arrangement


def _label(pieces: Iterable[Piece]) -> str:
    return "/".join(sorted({without_numbers(p.array) for p in pieces}))


def choose_pieces(
    pieces: Iterable[Piece], dims: Dims, count: int
) -> list[list[Piece]]:
    """Returns choices of this many pieces of a class, the likeliest first.

    Arrays of equal layers are chosen together.
    """
    groups = collections.defaultdict(list)
    for piece in pieces:
        if piece.dims == dims:
            # Parts of one array at different places are different groups.
            key = without_numbers(piece.array), piece.layout.steps
            groups[key].append(piece)
    merged = collections.defaultdict(list)
    for (name, _), found in groups.items():
        merged[name] += found
    choices = []
    for named in (list(merged.values()), list(groups.values())):
        for size in range(1, len(named) + 1):
            chosen = itertools.combinations(named, size)
            for groups_ in itertools.islice(chosen, 5 * CHOICES):
                if sum(map(len, groups_)) == count:
                    choices.append([p for g in groups_ for p in g])
    whole = [p for found in groups.values() for p in found]
    if not choices:
        choices.append(whole[:count])
    if len(whole) == count:
        choices.insert(0, whole)
    unique = {frozenset(choice): choice for choice in choices}
    return list(unique.values())


def ways_to_cut(pieces: Sequence[Piece], other: Counts) -> Iterator[Found]:
    """Yields ways to cut pieces of one class into classes of the other side.

    Args:
        pieces: the pieces to cut, all in the same way.
        other: the number of pieces of each class that only the other side
            has.
    """
    yield from _stacks(pieces, other)
    yield from _merges(pieces, other)
    yield from _parts(pieces, other)
    yield from _unmerges(pieces, other)


def _on_axis(
    pieces: Iterable[Piece], size: int, make: Callable[[Piece, int], Split]
) -> dict[Piece, Split]:
    """Cuts the first axis of this size of each piece."""
    return {p: make(p, p.shape.index(size)) for p in pieces}


def without(dims: Dims, *sizes: int) -> Dims | None:
    """Returns the sizes of a class without some; `None` if they lack."""
    rest = list(dims)
    for size in sizes:
        if size not in rest:
            return None
        rest.remove(size)
    return tuple(rest)


def _overlap(a: Dims, b: Dims) -> int:
    return sum((collections.Counter(a) & collections.Counter(b)).values())


def _stacks(pieces: Sequence[Piece], other: Counts) -> Iterator[Found]:
    """Takes stacks of layers, or of projections, apart."""
    dims, n = pieces[0].dims, len(pieces)
    for size in sorted(set(dims)):
        rest = without(dims, size) or ()
        same_volume = sum(
            count
            for found, count in other.items()
            if math.prod(found) == math.prod(rest)
        )
        similar = any(
            len(found) == len(rest) > 1
            and _overlap(found, rest) >= len(rest) - 1
            and count * math.prod(found) >= n * math.prod(dims)
            for found, count in other.items()
        )
        if same_volume >= n * size or similar:
            splits = _on_axis(pieces, size, unstack)
            yield f"axis of {size} unstacked", splits, (), 0


def _merges(pieces: Sequence[Piece], other: Counts) -> Iterator[Found]:
    """Merges neighboring axes, where the other side has merged ones."""
    options: dict[Dims, dict[Piece, Split]] = collections.defaultdict(dict)
    for piece in pieces:
        for merged in merged_shapes(piece.shape):
            options[dims_of(merged)].setdefault(piece, reshape(piece, merged))
    exact, similar = [], []
    for dims, splits in options.items():
        if len(splits) < len(pieces):
            continue
        found = f"neighboring axes merged to {dims}", splits, (), 0
        if dims in other:
            exact.append(found)
        elif any(
            len(wanted) == len(dims)
            and _overlap(wanted, dims) >= len(dims) - 1
            and math.prod(wanted) > math.prod(dims)
            for wanted in other
        ):
            similar.append(found)
    yield from exact
    yield from similar


def _parts(pieces: Sequence[Piece], other: Counts) -> Iterator[Found]:
    """Cuts a fused axis into parts of which the other side has more."""
    dims, n = pieces[0].dims, len(pieces)
    for size in sorted(set(dims), reverse=True):
        rest = without(dims, size)
        parts = {}
        for found, count in other.items():
            for part in set(found):
                if without(found, part) == rest and part < size and count >= n:
                    parts[part] = count // n
        if rest == () and () in other:  # a vector of scalars
            parts[1] = other[()] // n
        for sizes, zero in _ways_to_part(size, parts):
            for doubt, groups in enumerate(_groups(sizes)):
                splits = _on_axis(
                    pieces,
                    size,
                    lambda p, axis, s=sizes, g=groups: cut(p, axis, s, g),
                )
                zeros = [
                    split.children[i]
                    for split in splits.values()
                    for i in zero
                ]
                note = f"axis of {size} cut into {sizes}"
                if groups > 1:
                    note += f", in each of {groups} groups"
                if zero:
                    note += f", of which {zero} have no counterpart"
                yield note, splits, tuple(zeros), doubt


def _ways_to_part(
    size: int, parts: Mapping[int, int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yields sizes of the parts of an axis, and which of them are zero."""
    full = [part for part, count in parts.items() for _ in range(count)]
    seen = set()
    if full and sum(full) == size:
        orders = sorted(set(itertools.permutations(full[:6])), reverse=True)
        if len(full) > 6:
            orders = [tuple(full)]
        for order in orders[:ORDERS]:
            seen.add(order)
            yield order, ()
    for part, count in parts.items():
        if size % part:
            continue
        sizes, lacking = (part,) * (size // part), size // part - count
        if lacking <= 0 and sizes not in seen:
            yield sizes, ()
        elif 0 < lacking <= ZEROS:
            for zero in itertools.combinations(range(len(sizes)), lacking):
                yield sizes, zero


def _groups(sizes: tuple[int, ...]) -> list[int]:
    """Returns how many groups an axis of several parts may consist of."""
    common = math.gcd(*sizes)
    return [n for n in range(1, common + 1) if common % n == 0]


def _unmerges(pieces: Sequence[Piece], other: Counts) -> Iterator[Found]:
    """Splits a merged axis, where the other side has several axes."""
    dims, n = pieces[0].dims, len(pieces)
    for found, count in other.items():
        if len(found) <= len(dims) or count < n:
            continue
        for size in sorted(set(dims)):
            kept = collections.Counter(without(dims, size) or ())
            extra = collections.Counter(found) - kept
            sizes = tuple(sorted(extra.elements()))
            if len(sizes) < 2 or math.prod(sizes) != size:
                continue
            if kept - collections.Counter(found):
                continue
            for axes in _positions(pieces, size):
                for order in sorted(set(itertools.permutations(sizes))):
                    splits = {
                        p: reshape(
                            p, (*p.shape[:a], *order, *p.shape[a + 1 :])
                        )
                        for p, a in zip(pieces, axes, strict=True)
                    }
                    yield f"axis of {size} is {order}", splits, (), 0


def _positions(pieces: Sequence[Piece], size: int) -> Iterator[list[int]]:
    """Yields the axis of this size of each piece: the first, or the last."""
    first = [p.shape.index(size) for p in pieces]
    last = [len(p.shape) - 1 - p.shape[::-1].index(size) for p in pieces]
    yield first
    if last != first:
        yield last
