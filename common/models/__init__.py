"""The specs, by name."""

import dataclasses
from typing import Any

import numpy as np

from common.errors import HyperParameterError, choose
from common.models.deep_mlp import DeepMLP
from common.models.digits_cnn import DigitsCNN
from common.models.stateful_mlp import StatefulMLP
from common.protocol import Spec

SPECS: dict[str, type[Spec]] = {
    spec.name: spec for spec in (StatefulMLP, DigitsCNN, DeepMLP)
}


def specs() -> tuple[str, ...]:
    """Returns the names that `build(spec=...)` takes."""
    return tuple(SPECS)


def find_spec(spec: str | Spec, hyper_parameters: dict[str, Any]) -> Spec:
    """Makes a spec from a name, or changes an instance.

    Raises:
        ValueError: if there is no spec of that name.
        HyperParameterError: if the spec has no hyper-parameter of a given
            name.
    """
    if isinstance(spec, Spec):
        kind = type(spec)
    elif isinstance(spec, str) and spec in SPECS:
        kind = SPECS[spec]
    else:
        raise choose("spec", spec, SPECS)
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in hyper_parameters:
        if name not in fields:
            raise HyperParameterError(
                f"{kind.name} hyper-parameter: got {name!r}, expected one of "
                f"{', '.join(map(repr, fields))}. Remove or rename it."
            )
    values = {k: _plain(value) for k, value in hyper_parameters.items()}
    if isinstance(spec, Spec):
        return dataclasses.replace(spec, **values)
    return kind(**values)


def _plain(value: Any) -> Any:
    # A spec is hashable, JSON knows no tuples, and no numbers of NumPy's.
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value
