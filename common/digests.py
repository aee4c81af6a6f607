"""Digests of arrays whose parts are on several devices or in several files.

The digest of an array is the sum, modulo 2**64, of a hash of every element.
The hash depends on the bits of the element and on its place in the whole
array: it is the output of the generator SplitMix64 at that place, with the
bits as the seed. Each process computes the sum over the elements that it
holds, and these sums are added up. So an array has the same digest however it
is divided, and no process needs the whole array.

For each place the hash is a bijection of the bits, so that a change of one
element is always found. Other changes go unnoticed with a probability of
2**-64. It is no protection against intent, as a SHA-256 next to the data is
none.

References:
    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014.
"""

import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

STEP = 0x9E3779B97F4A7C15
MIXES = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST = 31
"""The constants of SplitMix64."""

MASK = 2**64 - 1
BLOCK = 2**14
"""How many elements are hashed at once, so that they stay in the cache."""


class Part(NamedTuple):
    """A part of an array that is on the host.

    Attributes:
        values: its elements.
        start: where it starts in the whole array, for each axis.
        shape: the shape of the whole array.
    """

    values: np.ndarray
    start: tuple[int, ...]
    shape: tuple[int, ...]


def parts_here(x: Any, process: int) -> list[Part]:
    """Returns the parts of an array for which this process is responsible.

    Those of all processes make the array, and none is in two of them. On CPU
    they share the memory of the array.

    Args:
        x: an array. One that is not of JAX is the same in all processes.
        process: the number of this process among those that have the array.
    """
    if not hasattr(x, "addressable_shards"):  # an array of NumPy
        x = np.asarray(x)
        return [Part(x, (0,) * x.ndim, x.shape)] if process == 0 else []
    return [
        Part(
            np.asarray(shard.data),
            tuple(axis.start or 0 for axis in shard.index),
            x.shape,
        )
        for shard in x.addressable_shards
        if shard.replica_id == 0
    ]


def total(parts: Sequence[Part]) -> int:
    """Returns the sum of the hashes of the elements of some parts."""
    return sum(map(part_sum, parts)) & MASK


def part_sum(part: Part) -> int:
    """Returns the sum of the hashes of the elements of one part."""
    values, start, shape = part
    if not values.size:
        return 0
    if not shape:
        values, start, shape = values.reshape(1), (0,), (1,)
    values = np.asarray(values, order="C")
    if values.dtype.itemsize > 8:  # complex128, as two numbers
        values = values[..., None].view(np.uint64)
        start, shape = (*start, 0), (*shape, 2)
    bits = values.view(f"u{values.dtype.itemsize}")
    # How far neighbors along each axis are apart in the whole array.
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    offset = 1 + sum(i * step for i, step in zip(start, steps, strict=True))
    return _sum(bits, offset, steps, {})


def _sum(
    bits: np.ndarray, offset: int, steps: Sequence[int], known: dict
) -> int:
    if bits.size <= BLOCK:
        return _block_sum(bits, offset, steps, known)
    axis = next(i for i, length in enumerate(bits.shape) if length > 1)
    length = bits.shape[axis]
    count = max(1, BLOCK * length // bits.size)
    before = (slice(None),) * axis
    return sum(
        _sum(
            bits[(*before, slice(first, first + count))],
            offset + first * steps[axis],
            steps,
            known,
        )
        for first in range(0, length, count)
    )


def _block_sum(
    bits: np.ndarray, offset: int, steps: Sequence[int], known: dict
) -> int:
    if bits.shape not in known:
        known[bits.shape] = _places(bits.shape, steps)
    x = known[bits.shape] + np.uint64(offset * STEP & MASK)
    x += bits
    shifted = np.empty_like(x)
    for shift, factor in MIXES:
        np.right_shift(x, np.uint64(shift), out=shifted)
        x ^= shifted
        x *= np.uint64(factor)
    np.right_shift(x, np.uint64(LAST), out=shifted)
    x ^= shifted
    return int(x.sum(dtype=np.uint64))


def _places(shape: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Returns the places of a block's elements, in steps of SplitMix64."""
    found = np.zeros(shape, np.uint64)
    for axis, (length, step) in enumerate(zip(shape, steps, strict=True)):
        places = np.arange(length, dtype=np.uint64)
        places *= np.uint64(step * STEP & MASK)
        found += places.reshape(-1, *(1,) * (len(shape) - axis - 1))
    return found


# --- files ------------------------------------------------------------------


def file_name(process: int) -> str:
    """Returns the name of the file with the digests of one process."""
    return f"{process}.json"


def sign(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns JSON values with the SHA-256 of their text."""
    return {"values": dict(values), "sha256": _sha256(values)}


def read(folder: pathlib.Path, processes: int) -> dict[str, int]:
    """Returns the digest of each array, from the files of all processes.

    Raises:
        OSError: if a file is missing.
        ValueError: if a file was damaged.
    """
    return add(
        _verified(folder / file_name(process)) for process in range(processes)
    )


def add(sums: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the digests of arrays from the sums of all processes."""
    totals: dict[str, int] = {}
    for some in sums:
        for name, number in some.items():
            totals[name] = totals.get(name, 0) + number & MASK
    return totals


def _verified(path: pathlib.Path) -> dict[str, int]:
    found = json.loads(path.read_text())
    if _sha256(found["values"]) != found["sha256"]:
        raise ValueError(f"{path.name!r} does not have its SHA-256")
    return found["values"]


def _sha256(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
