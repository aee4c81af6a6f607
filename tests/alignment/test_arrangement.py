"""Tests which arrangements can be completed, and what they lose."""

import pytest

from common.alignment.arrangement import Arrangement, Half, without_numbers


def arrangement(left, right):
    return Arrangement(Half.whole(left), Half.whole(right))


@pytest.mark.parametrize(
    ("left", "right", "possible"),
    [
        ({"a": (2, 3)}, {"x": (3, 2)}, True),
        ({"a": (2, 3)}, {"x": (3, 2), "y": (2, 3)}, True),  # may be tied
        ({"a": (2, 3)}, {"x": (2, 4)}, False),
        ({"a": (2, 3), "b": (5,)}, {"x": (2, 3)}, False),
    ],
)
def test_every_class_needs_one_on_the_other_side(left, right, possible):
    assert arrangement(left, right).is_possible() == possible
    assert arrangement(right, left).is_possible() == possible


def test_what_has_no_effect_needs_no_counterpart():
    found = arrangement({"a": (2, 3), "b": (5,)}, {"x": (2, 3)})
    assert not found.is_possible((["a"], []))
    assert found.is_possible((["b"], []))
    kept = found.left.keep([p for p in found.left.pieces if p.array == "b"])
    assert found.replace(0, kept).is_possible()


def test_sizes_that_one_side_lacks():
    found = arrangement({"a": (16, 4), "b": (16,)}, {"x": (20, 4)})
    assert found.sizes_of_one_side() == ([16], [20])
    assert found.names_without_counterpart() == (["a", "b"], ["x"])


def test_elements_without_a_counterpart_are_counted():
    found = arrangement({"a": (4, 4), "b": (4,)}, {"x": (4, 4)})
    assert found.missing() == 4 and not found.is_balanced
    kept = found.left.keep([found.left.pieces[1]])
    kept = found.replace(0, kept, "kept")
    assert kept.is_balanced and kept.missing() == 4
    assert kept.lost == 4 / 20
    assert kept.notes == ("kept",)


def test_layers_are_grouped_by_their_names_without_numbers():
    assert without_numbers("blocks.12.w1") == "blocks.#.w#"
