"""How many planted faults `diff` names first, for each bank."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.divergence.mutations.figures import find
from tests.divergence.mutations.pair import Pair
from tests.divergence.unseen import HELD_OUT, USED, fresh, independent, last

BANKS = {
    "used": USED,
    "held out": HELD_OUT,
    "independent": independent.FAULTS,
    "fresh": fresh.FAULTS,
    "last": last.FAULTS,
}


def figures() -> dict[str, dict[str, Any]]:
    """Computes the figures of each bank, and adds those of a first run."""
    figures = {name: count(faults) for name, faults in BANKS.items()}
    figures["last, at first"] = {
        "faults": len(last.FAULTS),
        "missed": list(last.MISSED_AT_FIRST),
        "silent": [],
    }
    return figures


def count(
    faults: Sequence[tuple[Pair, str]],
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Counts the faults whose line or function is the first origin.

    Args:
        faults: the pair and the name of each fault.
        after_each: called after each of them.

    Returns:
        The number of faults, the names of those for which another place is
        named first, and of those with which the outputs count as equal.
    """
    missed, silent = [], []
    for pair, fault in faults:
        found = find(pair, fault)
        if not found.found:
            silent.append(fault)
        elif 0 not in (found.line, found.function):
            missed.append(fault)
        after_each()
    return {"faults": len(faults), "missed": missed, "silent": silent}
