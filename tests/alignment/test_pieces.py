"""Tests cutting arrays, and putting them together again."""

import numpy as np
import pytest

from common.alignment.arrangement import Half
from common.alignment.assembly import assemble
from common.alignment.matching import Pair
from common.alignment.pieces import Piece, cut, permute, reshape, unstack
from common.layouts import Flip, Layout, Reshape, Slice, Transpose

SHAPE = (6, 4)
SPLITS = {
    "unstack": lambda p: unstack(p, 1),
    "cut": lambda p: cut(p, 0, (1, 3, 2)),
    "groups": lambda p: cut(p, 0, (2, 4), groups=2),
    "reshape": lambda p: reshape(p, (2, 3, 4)),
    "permute": lambda p: permute(
        p, [Reshape((2, 3, 4)), Transpose((1, 0, 2)), Reshape((6, 4))]
    ),
    "flip": lambda p: permute(p, [Flip((0,))]),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_a_split_is_undone(split):
    whole = Piece.whole("a", SHAPE)
    half = Half.whole({"a": SHAPE}).split({whole: split(whole)})
    pairs = [
        Pair(piece, piece, tuple(range(len(piece.dims))))
        for piece in half.pieces
    ]
    (layout,) = assemble(pairs, half, {"a": SHAPE}).layouts.values()
    x = np.arange(24.0).reshape(SHAPE)
    np.testing.assert_array_equal(layout(x), x)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_what_is_written_is_read(split):
    array = np.zeros(SHAPE)
    for i, piece in enumerate(split(Piece.whole("a", SHAPE)).children):
        values = i + np.random.default_rng(i).uniform(size=piece.shape)
        piece.write(array, values)
        np.testing.assert_array_equal(piece.of({"a": array}), values)
    assert np.all(array)


def test_a_piece_that_is_no_view_is_written():
    piece = Piece("a", Layout.of("a", SHAPE, Slice(1, 0, 2), Reshape((12,))))
    array = np.zeros(SHAPE)
    piece.write(array, np.arange(1.0, 13.0))
    assert np.count_nonzero(array) == 12
    np.testing.assert_array_equal(array[:, :2].reshape(-1), np.arange(1, 13))


def test_all_elements_along_a_free_axis_are_equal():
    piece = Piece("a", Layout.of("a", SHAPE), free=0)
    values = piece.values(0)
    np.testing.assert_array_equal(values, np.broadcast_to(values[0], SHAPE))
