"""Puts the arrays of a target where they are to be, each copied once."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.layouts import Concatenate, Layout, Stack, Transpose
from common.tensors import in_threads

ALIGNMENT = 64
"""JAX uses NumPy's memory as it is if it begins at so many bytes."""

TILE = 256
"""Rows and columns of a transposed piece that fits into the fastest cache."""

PADDING = 32
"""Elements between the rows of a piece, which keep it in the cache."""

SHARES = 8
"""How many parts of an array threads copy."""

THREADED = 2**24
"""Bytes below which it takes longer to start threads than they save."""

Window = tuple[slice, ...]
"""A range of each axis."""

Fill = Callable[[np.ndarray, Window], None]
"""Writes the elements of a window of an array into an array of its shape."""


def place(x: Any, old: Any) -> Any:
    """Returns an array where the old one is, with its sharding.

    Args:
        x: the new array, of the dtype that it is to have.
        old: the array of the target, or a `jax.ShapeDtypeStruct`.
    """
    if isinstance(old, np.ndarray) and not isinstance(x, jax.Array):
        return np.array(x)
    if getattr(old, "weak_type", False) and not np.shape(x):
        x = jnp.array(np.asarray(x).item())
    sharding = getattr(old, "sharding", None)
    if not isinstance(x, jax.Array):
        x = np.asarray(x)

        def fill(out, window):
            copy(out, x[window])

        return place_filled(fill, x.shape, x.dtype, sharding)
    if sharding is not None:
        return jax.device_put(x, sharding, may_alias=False)
    return jnp.array(x)


def place_filled(
    fill: Fill, shape: tuple[int, ...], dtype: Any, sharding: Any
) -> jax.Array:
    """Makes an array of JAX, of which this process holds its shards only.

    JAX takes over the memory that is filled if the device is the CPU. For any
    other device, one shard at a time is on the host.

    Args:
        fill: writes a window of the array.
        shape: of the whole array.
        dtype: of the array.
        sharding: where it is to be; `None` for JAX's default device.
    """
    if sharding is None:
        whole = tuple(slice(0, size) for size in shape)
        # Not `jnp.array`, which would copy once more.
        made = jax.device_put(_filled(fill, whole, dtype))
        return made.block_until_ready()
    devices: dict[Any, list[Any]] = {}
    indices = sharding.addressable_devices_indices_map(shape)
    for device, index in indices.items():
        window = tuple(
            slice(*each.indices(size)[:2])
            for each, size in zip(index, shape, strict=True)
        )
        bounds = tuple((each.start, each.stop) for each in window)
        devices.setdefault(bounds, []).append(device)
    shards = {}
    for bounds, holders in devices.items():
        data = _filled(fill, tuple(slice(*each) for each in bounds), dtype)
        for device in holders:
            kind = sharding.memory_kind
            single = jax.sharding.SingleDeviceSharding(
                device, memory_kind=kind
            )
            shards[device] = jax.device_put(data, single)
        # Otherwise all that is on its way would be on the host at once.
        jax.block_until_ready([shards[device] for device in holders])
    return jax.make_array_from_single_device_arrays(
        shape, sharding, [shards[device] for device in indices], dtype=dtype
    )


def _filled(fill: Fill, window: Window, dtype: Any) -> np.ndarray:
    shape = tuple(each.stop - each.start for each in window)
    out = empty(shape, np.dtype(dtype))
    fill(out, window)
    return out


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array that JAX can take over without a copy."""
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def fill_from(
    out: np.ndarray,
    window: Window,
    layout: Layout,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes a window of what a layout makes, without making the whole.

    The parts of a join are written to their places one after the other.

    Args:
        out: to write to; its dtype is the one that the values are to have.
        window: which part of the array `out` is.
        layout: of the array.
        arrays: the sources by name.
    """
    steps = list(layout.steps)
    while layout.join is not None and steps:
        last = steps[-1]
        if not isinstance(last, Transpose):
            break
        axes = np.argsort(last.axes)  # leads back
        out, window = out.transpose(axes), tuple(window[i] for i in axes)
        steps.pop()
    if layout.join is None or steps:
        copy(out, layout.apply(arrays)[window])
        return
    for part, target, inner in _parts(layout, out, window):
        if not isinstance(part, Layout):
            part = Layout.of(part.name, part.shape)
        fill_from(target, inner, part, arrays)


def _parts(layout: Layout, out: np.ndarray, window: Window) -> Any:
    """Yields each part of a join that a window has, and its place."""
    join = layout.join
    if isinstance(join, Stack):
        axis, before = join.axis, (slice(None),) * join.axis
        inner = (*window[:axis], *window[axis + 1 :])
        start, stop = window[axis].start, window[axis].stop
        for i in range(start, stop):
            # With the ellipsis, also a single element is a view.
            yield layout.inputs[i], out[(*before, i - start, ...)], inner
        return
    if not isinstance(join, Concatenate):
        raise TypeError(
            f"join: got {type(join).__name__}, expected a Concatenate or a "
            "Stack. Apply the layout instead."
        )
    axis, before = join.axis, (slice(None),) * join.axis
    ends = list(itertools.accumulate(join.sizes))
    begin, end = window[axis].start, window[axis].stop
    for part, first, last in zip(
        layout.inputs, [0, *ends], ends, strict=False
    ):
        start, stop = max(begin, first), min(end, last)
        if start < stop:
            place_ = (*before, slice(start - begin, stop - begin))
            own = (slice(start - first, stop - first),)
            yield (
                part,
                out[place_],
                (*window[:axis], *own, *window[axis + 1 :]),
            )


def copy(out: np.ndarray, x: np.ndarray) -> None:
    """Writes an array into another, fast also where it is transposed.

    NumPy copies a large transposed array slowly, because each element is on
    another page than the one before. Piece by piece, both are in the cache.

    Args:
        out: to write to.
        x: of the same shape. Its values are converted to the dtype of `out`.
    """
    if x.dtype == out.dtype and x.itemsize in (1, 2, 4, 8):
        # NumPy holds its lock while it copies other dtypes than its own.
        bits = np.dtype(f"u{x.itemsize}")
        out, x = out.view(bits), x.view(bits)
    rows, columns = _closest(x), _closest(out)
    in_order = rows == columns and x.nbytes < THREADED
    if x.size < TILE * TILE or in_order:
        np.copyto(out, x, casting="unsafe")
        return
    if rows == columns:
        first = max(range(x.ndim), key=lambda axis: abs(out.strides[axis]))
        out, x = out.swapaxes(0, first), x.swapaxes(0, first)
        size = -(-len(x) // SHARES)

        def copy_some(i):
            np.copyto(out[i : i + size], x[i : i + size], casting="unsafe")

        in_threads(copy_some, range(0, len(x), size))
        return
    order = [i for i in range(x.ndim) if i not in (rows, columns)]
    order += [rows, columns]
    out, x = out.transpose(order), x.transpose(order)
    for index in np.ndindex(*x.shape[:-2]):
        _copy_transposed(out[index], x[index])


def _closest(x: np.ndarray) -> int:
    """Returns the axis along which elements are closest in memory."""
    axes = [i for i in range(x.ndim) if x.shape[i] > 1]
    return min(axes, key=lambda axis: abs(x.strides[axis]), default=0)


def _copy_transposed(out: np.ndarray, x: np.ndarray) -> None:
    """Copies a matrix whose columns are contiguous to one whose rows are."""

    def copy_columns(j):
        piece = np.empty((TILE, TILE + PADDING), x.dtype)
        for i in range(0, x.shape[1], TILE):
            part = x[j : j + TILE, i : i + TILE].T
            held = piece[: part.shape[0], : part.shape[1]]
            held[...] = part
            target = out[j : j + TILE, i : i + TILE]
            np.copyto(target, held.T, casting="unsafe")

    starts = range(0, x.shape[0], TILE)
    if x.nbytes < THREADED:
        for start in starts:
            copy_columns(start)
    else:
        in_threads(copy_columns, starts)
