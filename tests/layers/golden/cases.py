"""The cases of all families."""

import functools
import itertools
import types
from collections.abc import Mapping

from tests.layers.golden import (
    activation,
    attention,
    convolution,
    linear,
    normalization,
    pooling,
    recurrent,
    reparametrization,
)
from tests.layers.golden.case import Case

FAMILIES = (
    linear,
    convolution,
    normalization,
    recurrent,
    reparametrization,
    attention,
    pooling,
    activation,
)


@functools.cache
def cases() -> Mapping[str, list[Case]]:
    """Returns the cases of each row, by the name of the row."""
    found: dict[str, list[Case]] = {}
    every = itertools.chain.from_iterable(
        family.cases() for family in FAMILIES
    )
    for case in every:
        found.setdefault(case.layer, []).append(case)
    return types.MappingProxyType(found)
