"""Arrays that hold the same values as others, in both directions."""

import jax
import numpy as np
import pytest

from common.layouts import Layout, Transpose
from common.porting import ArrayInfo, Plan
from common.porting.copies import copies_of, invert_beside, require_copies

TIED = Layout.of("tied", (2, 3))
HEAD = TIED.then(Transpose((1, 0)))
LAYOUTS = {"embed": TIED, "head": HEAD}
X = np.arange(6.0).reshape(2, 3)


def plan():
    return Plan(
        LAYOUTS,
        {"tied": ArrayInfo((2, 3), "float64")},
        {
            "embed": ArrayInfo((2, 3), "float64"),
            "head": ArrayInfo((3, 2), "float64"),
        },
    )


def test_the_array_that_is_not_needed_is_a_copy():
    made = {"tied": Layout.of("embed", (2, 3))}
    copy = Layout.of("embed", (2, 3), Transpose((1, 0)))
    assert copies_of(made, LAYOUTS) == {"head": copy}
    assert copies_of(made, {"embed": TIED}) == {}
    assert invert_beside({}, LAYOUTS) == (made, {"head": copy})
    assert invert_beside(made, {"head": HEAD}) == ({}, {"head": copy})


def test_a_plan_leads_back_and_forth():
    forth = plan()
    back = forth.inverse()
    assert back.copies.keys() == {"head"}
    assert back.inverse() == forth
    arrays = forth.apply({"tied": X})
    assert np.array_equal(back.apply(arrays)["tied"], X)
    assert "the same values: head (3, 2) and embed" in str(back)


@pytest.mark.parametrize("text", [plan().rules, plan().inverse().rules])
def test_one_set_of_rules_serves_both_directions(text):
    forth = plan()
    assert Plan.parse(text, forth.source, forth.target) == forth
    assert Plan.parse(text, forth.target, forth.source) == forth.inverse()


def test_other_values_are_refused():
    back = plan().inverse()
    with pytest.raises(ValueError, match="source 'head': got other values"):
        back.apply({"embed": X, "head": X.T + 1})


def test_arrays_without_values_are_not_checked():
    back = plan().inverse()
    shapes = {
        name: jax.ShapeDtypeStruct(info.shape, info.dtype)
        for name, info in back.source.items()
    }
    assert back.apply(shapes)["tied"].shape == (2, 3)
    traced = jax.eval_shape(back.apply, shapes)
    assert traced["tied"].shape == (2, 3)


def test_nan_is_a_value():
    copies = {"head": Layout.of("embed", (1,))}
    require_copies(
        copies, {"embed": [np.nan] * np.ones(1), "head": [np.nan] * np.ones(1)}
    )
    with pytest.raises(ValueError, match="expected the same"):
        require_copies(copies, {"embed": np.ones(1), "head": np.zeros(1)})
