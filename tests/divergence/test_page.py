"""The HTML page of a `Diff`."""

import dataclasses

from common import diff
from common.divergence import page
from tests.divergence.programs import (
    W,
    X,
    fast_norm,
    norm,
)


def test_page_shows_matched_values():
    found = diff(norm, lambda x: fast_norm(x, 1e-6), X)
    html = page.render(found, ("a", "b"), {"versions": {}})
    assert html.count("<circle") == len(found.nearest_values()) > 0


def test_page_shows_what_is_missing_hidden_or_of_an_input():
    def both(tree, x):
        y = x @ tree["layer"]["weight"]
        return {"y": y.astype("bfloat16").astype(x.dtype)}

    def one(tree, x):
        y = x @ tree["layer"]["weight"].T
        return {"y": y.astype("bfloat16").astype(x.dtype), "z": x}

    found = diff(both, one, {"layer": {"weight": W}}, X)
    html = page.render(found, ("a", "b"), {"versions": {}})
    assert "is returned on the right only" in html
    assert f"{found.origins[0].error:.3g}" in html
    assert "smallest and largest value" in html
    found = dataclasses.replace(found, hidden=0.0625)
    html = page.render(found, ("a", "b"), {"versions": {}})
    assert "can hide a relative error of 0.062" in html


def test_outputs_have_a_short_text():
    found = diff(norm, lambda x: fast_norm(x, 1e-6), X)
    assert len(repr(found.outputs)) < 200
    assert "of norm" in repr(found.outputs)
    assert len(repr(found.records)) < 200
