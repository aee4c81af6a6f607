"""How a strategy is written."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def options(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Draws a row's fields; those left out keep their defaults."""
    return st.fixed_dictionaries(fields)
