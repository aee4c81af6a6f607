"""Tests the ways of cutting arrays."""

import itertools

import pytest

from common.alignment.arrangement import Arrangement, Half
from common.alignment.cuts import alternatives, choose_pieces, ways_to_cut
from common.alignment.pieces import Piece
from common.alignment.search import best_first
from common.alignment.stacks import unstacked


def arrangement(left, right):
    return Arrangement(Half.whole(left), Half.whole(right))


def first_balanced(left, right, most=20):
    """Returns the notes of the first arrangement that fits, and the tries."""
    found = best_first(arrangement(left, right))
    for i, one in enumerate(found):
        if one.is_balanced and not any(half.kept for half in one.halves):
            return one, i
        assert i < most
    raise AssertionError("none fits")


@pytest.mark.parametrize(
    ("left", "right", "tries"),
    [
        ({"a": (12, 4)}, {x: (4, 4) for x in "qkv"}, 1),
        ({"a": (8, 4)}, {"q": (4, 4), "k": (2, 4), "v": (4, 2)}, 1),
        ({"a": (3, 5, 4)}, {f"l.{i}": (4, 5) for i in range(3)}, 1),
        ({"a": (4, 2, 3)}, {"a": (6, 4)}, 1),
        ({"a": (4, 12)}, {"a": (2, 2, 3, 4)}, 1),
        (
            {"a": (2, 12, 4)},
            {f"l.{i}.{x}": (4, 4) for x in "qkv" for i in range(2)},
            2,
        ),
    ],
    ids=[
        "fused",
        "grouped",
        "stacked",
        "merged",
        "unmerged",
        "stack of fused",
    ],
)
def test_the_first_arrangement_that_fits_is_found_at_once(left, right, tries):
    for sides in ((left, right), (right, left)):
        found, count = first_balanced(*sides)
        assert count == tries, found.notes


def test_a_stack_of_stacks_is_taken_apart():
    left = {"w": (2, 3, 4, 5), "b": (2, 3, 4)}
    right = {f"s.{i}.l.{j}.w": (4, 5) for i in range(2) for j in range(3)}
    right |= {f"s.{i}.l.{j}.b": (4,) for i in range(2) for j in range(3)}
    found, _ = first_balanced(left, right)
    assert len(found.left.pieces) == 12


def test_stacks_of_a_subtree_are_taken_apart_together():
    left = {"layers.w": (3, 4, 5), "layers.b": (3, 4), "head": (3,)}
    right = {f"{i}.w": (4, 5) for i in range(3)}
    right |= {f"{i}.b": (4,) for i in range(3)} | {"head": (3,)}
    _, found = list(unstacked(arrangement(left, right)))
    assert found.is_balanced
    assert found.notes == ("layers: stack of 3 layers",)


def test_a_stack_is_found_whatever_the_names_of_its_layers():
    # The biases look like square kernels, and the kernels are in no list.
    left = {"body.w": (3, 3, 3), "body.b": (3, 3), "a": (3, 3)}
    right = {f"{x}.w": (3, 3) for x in ("conv", "out", "mix", "proj")}
    right |= {f"{x}.b": (3,) for x in ("conv", "out", "mix")}
    for sides in ((left, right), (right, left)):
        found, count = first_balanced(*sides)
        assert count == 1
        assert found.notes == ("body: stack of 3 layers",)


def test_other_axes_are_merged_where_the_sizes_do_not_tell():
    start = arrangement(
        {"o": (4, 12), "q": (12, 4)}, {"out.0": (4, 3, 4), "q": (4, 4, 3)}
    )
    ways = itertools.islice(best_first(start), 3)
    shapes = [{p.array: p.shape for p in one.right.pieces} for one in ways]
    assert shapes[1:] == [
        {"out.0": (4, 12), "q": (4, 12)},
        {"out.0": (12, 4), "q": (4, 12)},
    ]


def test_interleaved_parts_come_after_plain_ones():
    pieces = [Piece.whole("a", (12, 4))]
    found = list(ways_to_cut(pieces, {(4, 4): 3}))
    assert [doubt for *_, doubt in found] == [0, 1, 2]
    assert "in each of 2 groups" in found[1][0]


def test_arrays_of_equal_layers_are_chosen_together():
    pieces = [Piece.whole(f"{i}.{x}", (4,)) for i in range(2) for x in "ab"]
    choices = choose_pieces(pieces, (4,), 2)
    assert [{p.array for p in c} for c in choices[:2]] == [
        {"0.a", "1.a"},
        {"0.b", "1.b"},
    ]


def test_what_fits_nowhere_is_kept():
    found = list(alternatives(arrangement({"a": (3, 4)}, {})))
    assert [[p.array for p in one.left.kept] for one in found] == [["a"]]
    assert found[0].notes == ("a: kept, no counterpart",)


def test_a_part_without_a_counterpart_is_zero():
    found, _ = first_balanced({"b": (12,)}, {"q": (4,), "v": (4,)})
    assert len(found.left.zero) == 1
