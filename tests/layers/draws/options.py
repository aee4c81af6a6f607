"""The strategy for the fields of a row."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def options(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Draws some fields of a row; the others keep their defaults."""
    return st.fixed_dictionaries(fields)
