"""The HTML page of a `Diff`."""

from common import diff
from common.divergence import page
from tests.divergence.programs import (
    X,
    fast_norm,
    norm,
)


def test_page_shows_matched_values():
    found = diff(norm, lambda x: fast_norm(x, 1e-6), X)
    html = page.render(found, ("a", "b"), {"versions": {}})
    assert html.count("<circle") == len(found.nearest_values()) > 0
