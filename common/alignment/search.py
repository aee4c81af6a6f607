"""Searches the ways of cutting arrays, best first."""

import heapq
import itertools
from collections.abc import Iterator

from common.alignment.arrangement import Arrangement
from common.alignment.cuts import alternatives
from common.alignment.merges import other_merges
from common.alignment.stacks import unstacked


def best_first(start: Arrangement) -> Iterator[Arrangement]:
    """Yields arrangements, those with the fewest lonely elements first.

    Args:
        start: yielded first.
    """
    count, done = itertools.count(), set()
    heap = [(start.missing(), start.doubt, next(count), start)]
    while heap:
        arrangement = heapq.heappop(heap)[-1]
        if arrangement.key in done:
            continue
        done.add(arrangement.key)
        yield arrangement
        if arrangement.is_balanced:
            ways = other_merges(arrangement)
        else:
            ways = itertools.chain(
                unstacked(arrangement), alternatives(arrangement)
            )
        for new in ways:
            rank = new.missing(), new.doubt, next(count)
            heapq.heappush(heap, (*rank, new))
