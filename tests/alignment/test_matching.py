"""Tests telling arrays apart by their gradients."""

import itertools

import numpy as np
import pytest

from common.alignment.arrangement import Arrangement, Half
from common.alignment.elimination import pair_dead
from common.alignment.matching import Evidence, Pair, Sketches
from common.alignment.pieces import Piece
from common.alignment.sides import Run
from common.alignment.sketches import SAMPLES, sketch
from common.alignment.ties import Limits, Resolver, carried_values, components

FLOOR, LIMITS = 1e-14, Limits(match=1e-8, effect=1e-10)


def evidence(left, right):
    """Returns the evidence of gradients by name."""
    halves = [
        Half.whole({name: x.shape for name, x in side.items()})
        for side in (left, right)
    ]
    sketches = [
        Sketches.of(half, Run([], side))
        for half, side in zip(halves, (left, right), strict=True)
    ]
    return Evidence(
        Arrangement(halves[0], halves[1]), (sketches[0], sketches[1]), FLOOR
    )


def resolve(left, right, again=None):
    """Pairs arrays; `again` gives the gradients with other weights."""

    def new_evidence(values):
        assert again is not None, "gradients were taken again"
        return evidence(*again(values))

    return Resolver(evidence(left, right), new_evidence, LIMITS).resolve()


def named(pairing):
    return {(p.left.array, p.right.array): p.order for p in pairing.pairs}


def gradients(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("shape", [(4, 4, 3), (40, 40)])
def test_a_sketch_of_a_transposed_array_has_the_same_rows(shape):
    x = gradients(0, x=shape)["x"]
    first = sketch(x)
    assert first.shape[1] == min(x.size, SAMPLES)
    for order in itertools.permutations(range(len(shape))):
        second = sketch(x.transpose(order))
        for row in first:
            assert np.min(np.abs(second - row).max(axis=1)) < 1e-12


def test_a_sketch_sees_a_large_array_with_few_elements():
    x = np.zeros((300, 400))
    x[17, 23] = 1.0
    assert np.abs(sketch(x)).max() > 0
    y = np.zeros((300, 400))
    y[18, 23] = 1.0
    assert np.abs(sketch(x) - sketch(y)).max() > 0


def test_rounding_errors_of_saturated_outputs_do_not_count():
    left = gradients(0, a=(5, 5), b=(5, 5))
    right = {"x": left["a"], "y": left["b"].T}
    noise = gradients(1, x=(5, 5), y=(5, 5))
    saturated = evidence(
        {name: 1e-10 * x for name, x in left.items()},
        {name: 1e-10 * x + 1e-16 * noise[name] for name, x in right.items()},
    )
    found = evidence(left, right).add(saturated)
    back = saturated.add(evidence(left, right))
    pairings = [
        Resolver(one, lambda values: saturated, LIMITS).resolve()
        for one in (found, back, saturated)
    ]
    assert [len(named(x)) for x in pairings] == [2, 2, 0]
    for pairing in pairings[:2]:
        assert set(named(pairing)) == {("a", "x"), ("b", "y")}


def test_arrays_are_paired_with_their_orientation():
    left = gradients(0, a=(5, 5), b=(5, 5), c=(3, 5))
    right = {"x": left["b"].T, "y": left["a"], "z": left["c"].T}
    assert named(resolve(left, right)) == {
        ("b", "x"): (1, 0),
        ("a", "y"): (0, 1),
        ("c", "z"): (1, 0),
    }


def test_an_array_that_no_other_resembles_has_no_counterpart():
    left, right = gradients(0, a=(5, 5)), gradients(1, x=(5, 5))
    pairing = resolve(left, right)
    assert not pairing.is_complete
    assert [p.array for p in pairing.left] == ["a"]
    assert [p.array for p in pairing.right] == ["x"]


def test_a_gradient_that_is_a_sum_is_tied():
    left = gradients(0, q=(4, 3), a=(5, 6), b=(6, 5))
    right = {"x": left["a"] + left["b"].T, "y": left["q"]}
    pairing = resolve(left, right)
    assert pairing.is_complete
    ((whole, parts),) = pairing.tied
    assert (whole.array, [p.array for p in parts]) == ("x", ["a", "b"])
    assert len(components(pairing.pairs)) == 2


def test_what_looks_alike_is_told_apart_with_other_weights():
    same = gradients(0, a=(4,))["a"]
    left = {"a": same, "b": same, **gradients(1, c=(5,))}
    right = {"x": same, "y": same, "z": left["c"]}

    def again(values):
        assert [p.array for p in values[0]] == ["c"]
        new = gradients(2, a=(4,), b=(4,), c=(5,))
        return new, {"x": new["b"], "y": new["a"], "z": new["c"]}

    pairing = resolve(left, right, again)
    assert set(named(pairing)) == {("b", "x"), ("a", "y"), ("c", "z")}
    assert pairing.choices == []


def test_what_always_looks_alike_is_a_choice_of_the_same_module():
    same = gradients(0, w=(4, 3), b=(4,))
    left = {f"{m}.{n}": x for m in "pq" for n, x in same.items()}
    right = {f"{m}.{n}": x for m in "st" for n, x in same.items()}
    pairing = resolve(left, right, lambda _: (left, right))
    assert pairing.is_complete
    assert len(pairing.choices) == 2
    origins = {(b[0], a[0]) for a, b in named(pairing)}
    assert len(origins) == 2  # each module comes from one module


def test_rounding_errors_are_no_effect():
    left = {**gradients(0, a=(3,)), "dead": np.full(4, 1e-17)}
    right = {"x": left["a"], "y": np.full(4, -1e-17)}
    pairing = resolve(left, right)
    assert named(pairing) == {("a", "x"): (0,)}
    assert [[p.array for p in side] for side in pairing.dead] == [
        ["dead"],
        ["y"],
    ]


def whole(name, shape=(4,)):
    return Piece.whole(name, shape)


def test_arrays_without_an_effect_are_paired_with_their_siblings():
    pairs = [
        Pair(whole(f"l.{i}.q"), whole(f"b.{1 - i}.query"), (0,))
        for i in range(2)
    ]
    dead = (
        [whole(f"l.{i}.k") for i in range(2)],
        [whole(f"b.{i}.key") for i in range(2)],
    )
    found = pair_dead(pairs, *dead)
    assert {(p.left.array, p.right.array) for p in found} == {
        ("l.0.k", "b.1.key"),
        ("l.1.k", "b.0.key"),
    }


def test_arrays_without_an_effect_and_without_siblings_are_not_paired():
    dead = [whole("a"), whole("b")], [whole("x"), whole("y")]
    assert pair_dead([], *dead) == []
    assert len(pair_dead([], [whole("a")], [whole("x")])) == 1


def test_values_are_carried_through_tied_pieces():
    a, b, x = whole("a", (2, 3)), whole("b", (3, 2)), whole("x", (2, 3))
    pairs = [Pair(a, x, (0, 1)), Pair(b, x, (1, 0))]
    values = np.arange(6.0).reshape(2, 3)
    left, right = carried_values(pairs, lambda piece: values)
    np.testing.assert_array_equal(left[b], values.T)
    np.testing.assert_array_equal(right[x], values)
