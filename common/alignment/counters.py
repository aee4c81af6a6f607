"""Pairs the counters and flags of layers that correspond.

Runs in inference mode do not depend on such arrays: the number of batches that
a batch norm has seen, or whether it has seen any. They belong to the layers
whose other arrays are paired.
"""

from collections.abc import Iterable, Mapping

from common.layouts import Layout, Role
from common.porting.arrays import Infos


def pair_counters(
    layouts: Mapping[str, Layout], source: Infos, target: Infos
) -> dict[str, Layout]:
    """Pairs integer and boolean buffers, one of each kind in a layer.

    Args:
        layouts: of the paired arrays, by the name of the right array.
        source: the arrays of the left model.
        target: the arrays of the right model.

    Returns:
        The layouts of the counters of the right model that have exactly one
        counterpart.
    """
    homes: dict[str, set[str]] = {}
    for name, layout in layouts.items():
        lefts = {layer_of(part.name) for part in layout.sources}
        homes.setdefault(layer_of(name), set()).update(lefts)
    ours, theirs = counters(source), counters(target)
    paired = {}
    for (layer, kind), rights in theirs.items():
        lefts = [
            name
            for home in homes.get(layer, ())
            for name in ours.get((home, kind), ())
        ]
        if len(rights) == len(lefts) == 1 and (
            source[lefts[0]].shape == target[rights[0]].shape
        ):
            paired[rights[0]] = Layout.of(lefts[0], source[lefts[0]].shape)
    return paired


def counters(infos: Infos) -> dict[tuple[str, str], list[str]]:
    """Returns integer and boolean buffers by layer and kind of dtype."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, info in infos.items():
        kind = "flag" if info.dtype == "bool" else "count"
        is_counter = kind == "flag" or "int" in str(info.dtype)
        if info.role is Role.BUFFER and is_counter:
            found.setdefault((layer_of(name), kind), []).append(name)
    return found


def layer_of(name: str) -> str:
    """Returns the name of the layer that holds an array.

    The arrays of a `StateIndex` are numbered: `norm.ema_state_index.0`.
    """
    words = name.split(".")
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return ".".join(words[:-1])


def without(names: Iterable[str], paired: Iterable[str]) -> tuple[str, ...]:
    """Returns the names that are not paired."""
    taken = set(paired)
    return tuple(name for name in names if name not in taken)
