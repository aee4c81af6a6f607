"""Files of safetensors, which are read and written one array at a time."""

import dataclasses
import functools
import json
import math
import mmap
import os
import pathlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np
import safetensors

from common.files import write_chunks

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
"""The dtype of NumPy or ml_dtypes for each of safetensors'."""

CODES = {np.dtype(dtype).name: code for code, dtype in DTYPES.items()}
CHUNK = 2**22
"""How many bytes are hashed at once."""

PIECE = 2**18
"""How many bytes are looked at twice, while they are in the cache."""

SHARE = 16
"""How many pieces a thread looks at before it takes others."""

THREADS = min(os.cpu_count() or 1, 4)
"""More would wait for the memory."""

T = TypeVar("T")

ALIGNED = 8
"""The first array begins at a multiple of this many bytes."""

LENGTH = 8
"""How many bytes the length of the header has."""

INDEX = ".safetensors.index.json"
"""The end of the name of a file that says which file holds which array."""


class File:
    """A file that is open until nothing refers to it."""

    def __init__(self, path: pathlib.Path):
        """Opens the file.

        Raises:
            OSError: if it cannot be read.
        """
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def view(self, start: int, stop: int) -> np.ndarray:
        """Maps bytes into memory, which cannot be written to.

        The mapping ends with the last view of it.
        """
        if start == stop:
            return np.zeros(0, np.uint8)
        outside = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._descriptor,
            stop - start + outside,
            access=mmap.ACCESS_READ,
            offset=start - outside,
        )
        return np.frombuffer(mapped, np.uint8, offset=outside)


class Entry(NamedTuple):
    """Where an array is in a file.

    Attributes:
        file: the file.
        offset: of its first byte.
        shape: of the array.
        dtype: of the array.
    """

    file: File
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def view(self) -> np.ndarray:
        """Maps the array into memory; see `File.view`."""
        size = math.prod(self.shape) * self.dtype.itemsize
        data = self.file.view(self.offset, self.offset + size)
        return data.view(self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Stored(Mapping[str, np.ndarray]):
    """The arrays of files, each of which is mapped when it is asked for.

    An array takes no memory of its own: its bytes are in the page cache of
    the system, and the mapping ends with the last view of the array.

    Attributes:
        entries: where each array is, by name.
        metadata: the text in the header of the file.
        start: the bytes of the file before the first array. Empty if there
            are several files.
        file: the file, if there is one only.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: bytes = b""
    file: File | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].view()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def renamed(self, names: Mapping[str, str]) -> "Stored":
        """Returns some of the arrays under other names.

        Args:
            names: the name of each array in this mapping, by its new name.
        """
        entries = {new: self.entries[old] for new, old in names.items()}
        return dataclasses.replace(self, entries=entries)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yields all bytes of the arrays of the file in order.

        Raises:
            ValueError: if there are several files.
        """
        if self.file is None:
            raise ValueError(
                "chunks: got the arrays of several files, expected those of "
                "one. Open each of the files."
            )
        for i in range(len(self.start), self.file.size, CHUNK):
            yield self.file.view(i, min(i + CHUNK, self.file.size))


def open_stored(path: str | os.PathLike[str]) -> Stored:
    """Opens a file, of which it reads the header only.

    Args:
        path: a safetensors file, or an index, `model.safetensors.index.json`,
            which names the files of a folder that hold its arrays.

    Raises:
        OSError: if a file cannot be read.
        SafetensorError: if a file is not whole, or its header is wrong.
        TypeError: if an array has a dtype that neither NumPy nor ml_dtypes
            has.
        ValueError: if an index is wrong.
    """
    path = pathlib.Path(path)
    if not path.name.endswith(INDEX):
        return _open(path)
    index = json.loads(path.read_bytes())
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(name, str) and pathlib.PurePath(name).name == name
        for name in files.values()
    ):
        raise ValueError("no file names of its folder under 'weight_map'")
    opened = {name: _open(path.parent / name) for name in {*files.values()}}
    absent = sorted(n for n, file in files.items() if n not in opened[file])
    if absent:
        raise ValueError(f"no arrays {absent} in the files of the index")
    return Stored({n: opened[file].entries[n] for n, file in files.items()})


def _open(path: pathlib.Path) -> Stored:
    # It checks that the arrays fill the file, without gaps.
    with safetensors.safe_open(path, framework="numpy") as checked:
        names = checked.keys()
    file = File(path)
    length = int.from_bytes(file.view(0, LENGTH), "little")
    start = file.view(0, LENGTH + length).tobytes()
    header = json.loads(start[LENGTH:])
    entries = {}
    for name in names:
        code, shape = header[name]["dtype"], header[name]["shape"]
        if code not in DTYPES:
            raise TypeError(f"{name!r} has the dtype {code}")
        first, _ = header[name]["data_offsets"]
        offset = LENGTH + length + first
        dtype = np.dtype(DTYPES[code])
        entries[name] = Entry(file, offset, tuple(shape), dtype)
    metadata = header.get("__metadata__") or {}
    return Stored(entries, metadata, start, file)


def has_nan(x: np.ndarray) -> bool:
    """Returns whether an array has NaN in it, with little memory."""
    if x.dtype.kind in "iub" or not x.size:
        return False
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    flat = x.transpose(order)  # NaN is NaN in any order
    flat = flat.reshape(-1) if flat.flags.c_contiguous else flat.ravel()
    size = max(PIECE // x.itemsize, 1)
    # Arithmetic of narrow floats is slow. Floats of one sign are ordered like
    # their bits, and NaN comes after infinity.
    limits: list[tuple[Any, Any]] = []
    if _is_ieee(x.dtype):
        kinds = [np.dtype(f"{kind}{x.itemsize}") for kind in "iu"]
        infinities = np.array([np.inf, -np.inf], x.dtype)
        limits = [(k, infinities.view(k)[i]) for i, k in enumerate(kinds)]

    def search(start):
        for i in range(start, min(start + SHARE * size, flat.size), size):
            piece = flat[i : i + size]
            if limits:
                found = any(piece.view(k).max() > most for k, most in limits)
            else:
                found = bool(np.isnan(piece).any())
            if found:
                return True
        return False

    return any(in_threads(search, range(0, flat.size, SHARE * size)))


def in_threads(call: Callable[[int], T], numbers: Sequence[int]) -> list[T]:
    """Calls a function of NumPy's in threads, if there are several calls."""
    if len(numbers) < 2:
        return [call(number) for number in numbers]
    with futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, numbers))


@functools.cache
def _is_ieee(dtype: np.dtype) -> bool:
    """Whether bits are ordered as in IEEE 754, with infinities."""
    if dtype.itemsize not in (1, 2, 4, 8) or dtype.kind == "c":
        return False
    with np.errstate(all="ignore"):
        return bool(np.isinf(np.array([np.inf, -np.inf], dtype)).all())


def write_stored(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, of which one array is on the host at a time.

    The file is complete, or nothing is changed.

    Args:
        path: the file to write.
        arrays: by name, of NumPy or of JAX.
        metadata: text to keep in the header.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if an array has a dtype that safetensors lacks.
    """
    write_chunks(path, bytes_of(arrays, metadata))


def bytes_of(
    arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """Yields the bytes of a safetensors file: the header, then each array.

    Args:
        arrays: by name, of NumPy or of JAX.
        metadata: text to keep in the header.

    Raises:
        TypeError: if an array has a dtype that safetensors lacks.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
    names = sorted(arrays, key=lambda name: _order(name, arrays[name]))
    position = 0
    for name in names:
        dtype, shape = np.dtype(arrays[name].dtype), arrays[name].shape
        if dtype.name not in CODES:
            raise TypeError(
                f"array {name!r}: got the dtype {dtype.name}, expected one "
                f"of {', '.join(CODES)}. Convert it first."
            )
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": CODES[dtype.name],
            "shape": list(shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH + len(text)) % ALIGNED)
    yield len(text).to_bytes(LENGTH, "little") + text
    for name in names:
        x = np.ascontiguousarray(np.asarray(arrays[name]))
        # NumPy has no memoryviews of the dtypes of ml_dtypes.
        yield x.reshape(-1).view(np.uint8)


def _order(name: str, x: Any) -> tuple[int, str]:
    """Sorts wide dtypes first, so that every array is aligned."""
    return -np.dtype(x.dtype).itemsize, name
