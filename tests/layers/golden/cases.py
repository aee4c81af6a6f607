"""The cases of every family."""

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
    """Returns the cases of each row by its name."""
    found: dict[str, list[Case]] = {}
    every = itertools.chain.from_iterable(it.cases() for it in FAMILIES)
    for case in every:
        found.setdefault(case.layer, []).append(case)
    return types.MappingProxyType(found)
