"""Digests: the same however an array is divided, and other for other bits."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from common import digests
from common.digests import Part, add, parts_here, total

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(6, 4, 2)).astype("float32"),
    "float64": RNG.normal(size=(8, 3)),
    "bfloat16": np.asarray(jnp.arange(12, dtype=jnp.bfloat16).reshape(4, 3)),
    "bool": RNG.normal(size=(4, 5)) > 0,
    "int8": np.arange(-6, 6, dtype="int8").reshape(2, 6),
    "complex64": (RNG.normal(size=(4, 2)) * 1j).astype("complex64"),
    "complex128": RNG.normal(size=(4, 2)) + 1j,
    "scalar": np.array(3, np.int32),
    "long": RNG.normal(size=(3, 2, digests.BLOCK + 5)).astype("float32"),
    "narrow": RNG.normal(size=(digests.BLOCK + 5, 3)).astype("float32"),
}


def split(x: np.ndarray, axis: int, at: int) -> list[Part]:
    """Returns the two parts of an array before and after an index."""
    start = [0] * x.ndim
    start[axis] = at
    before, after = np.split(x, [at], axis)
    return [
        Part(before, (0,) * x.ndim, x.shape),
        Part(after, tuple(start), x.shape),
    ]


@pytest.mark.parametrize("name", ARRAYS)
def test_any_division_has_the_same_digest(name):
    x = ARRAYS[name]
    expected = total(parts_here(x, 0))
    assert total(parts_here(jnp.asarray(x), 0)) == expected
    assert total(parts_here(np.asfortranarray(x), 0)) == expected
    assert parts_here(x, 1) == []
    for axis in range(x.ndim):
        for at in (0, 1, x.shape[axis] - 1):
            assert total(split(x, axis, at)) == expected
    rows = [{"x": total([part])} for part in split(x, 0, 1)] if x.ndim else []
    if rows:
        assert add(rows) == {"x": expected}


@pytest.mark.parametrize("name", ARRAYS)
def test_any_bit_changes_the_digest(name):
    x = np.array(ARRAYS[name])
    seen = {total(parts_here(x, 0))}
    data = x.reshape(-1).view(np.uint8)
    draws = 8 * data.size if data.size < 100 else 50
    for bit in RNG.choice(8 * data.size, draws, replace=False):
        data[bit // 8] ^= 1 << bit % 8
        seen.add(total(parts_here(x, 0)))
        data[bit // 8] ^= 1 << bit % 8
    assert len(seen) == draws + 1


def test_places_count():
    x = np.arange(6.0)
    seen = {total(parts_here(np.roll(x, i), 0)) for i in range(6)}
    seen.add(total(parts_here(np.zeros(6), 0)))
    seen.add(total(parts_here(np.zeros(5), 0)))
    seen.add(total(parts_here(np.zeros(1), 0)))
    assert len(seen) == 9
    assert total([]) == 0


def test_the_hash_is_splitmix64():
    """The first outputs of the published generator for the seed 1234567."""
    x = np.full(3, 1234567, np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for i, output in enumerate(expected):
        assert total([Part(x[i : i + 1], (i,), (3,))]) == output


def test_a_file_that_was_damaged_is_refused(tmp_path):
    for process, sums in enumerate([{"a": 1, "b": digests.MASK}, {"b": 3}]):
        file = tmp_path / digests.file_name(process)
        file.write_text(json.dumps(digests.sign(sums)))
    assert digests.read(tmp_path, 2) == {"a": 1, "b": 2}
    with pytest.raises(FileNotFoundError):
        digests.read(tmp_path, 3)
    file = tmp_path / digests.file_name(1)
    file.write_text(file.read_text().replace("3", "4", 1))
    with pytest.raises(ValueError, match=r"'1\.json' does not have its SHA-"):
        digests.read(tmp_path, 2)
