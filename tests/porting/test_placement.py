"""Tests of how arrays are put where they are to be."""

import jax
import numpy as np
import pytest

from common.layouts import (
    Concatenate,
    Flip,
    Layout,
    Reshape,
    Slice,
    Source,
    Stack,
    Transpose,
)
from common.porting import placement
from common.porting.placement import copy, empty, fill_from, place
from tests import topologies

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("threaded", [1, placement.THREADED])
@pytest.mark.parametrize("shape", [(300, 600), (3, 257, 513), (2, 9, 400, 3)])
def test_a_transposed_copy(shape, threaded, monkeypatch):
    monkeypatch.setattr(placement, "THREADED", threaded)
    x = RNG.normal(size=shape).astype(np.float32)
    for view in (x, x.T, x.swapaxes(-1, -2), x[::-1].T, x[..., ::2]):
        out = np.empty(view.shape, np.float64)
        copy(out, view)
        assert np.array_equal(out, view)
        into = np.zeros(view.shape[::-1], np.float32).T
        copy(into, view)
        assert np.array_equal(into, view)


W = Source("w", (4, 6))
V = Source("v", (4, 6))
ARRAYS = {name: RNG.normal(size=(4, 6)) for name in "wv"}
LAYOUTS = [
    Layout((W,), steps=(Transpose((1, 0)), Slice(0, 1, 5))),
    Layout((W, V), Stack(0, 2), (Transpose((2, 0, 1)),)),
    Layout((W, V), Stack(1, 2), (Transpose((2, 1, 0)), Transpose((1, 0, 2)))),
    Layout((W, V), Concatenate(1, (6, 6)), (Transpose((1, 0)),)),
    Layout((W, V), Concatenate(0, (4, 4)), (Reshape((2, 4, 6)), Flip((0,)))),
    Layout(
        (
            Layout((W,), steps=(Transpose((1, 0)),)),
            Layout((V, W), Concatenate(0, (4, 4)), (Transpose((1, 0)),)),
        ),
        Concatenate(1, (4, 8)),
        (Transpose((1, 0)),),
    ),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_windows_of_a_layout(layout):
    whole = layout.apply(ARRAYS)
    for _ in range(30):
        ends = [sorted(RNG.integers(0, n + 1, 2)) for n in whole.shape]
        window = tuple(slice(int(a), int(b)) for a, b in ends)
        out = np.full(whole[window].shape, np.nan, np.float32)
        fill_from(out, window, layout, ARRAYS)
        assert np.array_equal(out, whole[window].astype(np.float32))


def test_what_is_placed_does_not_share_memory_with_its_source():
    x = empty((8, 8), np.dtype(np.float32))
    x[...] = 1
    # The fault that this prevents: JAX takes over aligned memory as it is.
    shared = jax.device_put(x, jax.devices()[0], may_alias=False)
    old = jax.numpy.zeros((8, 8))
    for target in (old, jax.ShapeDtypeStruct((8, 8), np.float32)):
        placed = place(x, target)
        x[0, 0] += 1
        assert placed[0, 0] == x[0, 0] - 1
    assert shared[0, 0] == 3


def test_an_unknown_join():
    layout = Layout((W, V), Stack(0, 2))
    object.__setattr__(layout, "join", "zip")
    with pytest.raises(TypeError, match="join: got str, expected a Conc"):
        list(placement._parts(layout, np.zeros(2), ()))


def split_over_devices():
    """Returns where a stack lies that is split over eight devices."""
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    found = []
    layout = Layout((W, V), Concatenate(0, (4, 4)), (Transpose((1, 0)),))
    for spec in (P(None, "a"), P("b", "a"), P("b"), P(), P(None, ("a", "b"))):
        asked = []

        def fill(out, window, asked=asked):
            asked.append(out.size)
            fill_from(out, window, layout, ARRAYS)

        sharding = NamedSharding(mesh, spec)
        made = placement.place_filled(fill, (6, 8), np.float32, sharding)
        assert made.sharding == sharding
        assert np.array_equal(made, layout.apply(ARRAYS).astype(np.float32))
        found.append(asked)
    return found


def test_each_shard_is_made_once_however_many_devices_hold_it():
    ((*found,),) = topologies.run(split_over_devices, devices=8)
    assert found == [[12] * 4, [6] * 8, [24] * 2, [48], [6] * 8]


def split_over_processes():
    """Returns the sizes of the shards that this process has made."""
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("a",))
    sharding = NamedSharding(mesh, PartitionSpec(None, "a"))
    layout = Layout((W, V), Concatenate(0, (4, 4)), (Transpose((1, 0)),))
    whole = layout.apply(ARRAYS).astype(np.float32)
    asked = []

    def fill(out, window):
        asked.append(out.size)
        fill_from(out, window, layout, ARRAYS)

    made = placement.place_filled(fill, whole.shape, np.float32, sharding)
    for shard in made.addressable_shards:
        assert np.array_equal(shard.data, whole[shard.index])
    return asked


@pytest.mark.exhaustive
def test_a_process_makes_the_shards_of_its_devices_only():
    found = topologies.run(split_over_processes, processes=2, devices=2)
    assert found == [[12, 12], [12, 12]]
