"""What Hypothesis draws for each row of the layer table.

A strategy yields the fields of a row, within the layer's valid range. Its
space is small on purpose: whatever is new in a field is compiled anew.
"""

from typing import Any

from hypothesis.strategies import SearchStrategy

from tests.draws import batch_norm, linear

DRAWS: dict[str, SearchStrategy[dict[str, Any]]] = {
    **linear.DRAWS,
    **batch_norm.DRAWS,
}
