"""The specs of the models, by name."""

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
    """Creates the spec of a given name, or a changed copy of an instance.

    Args:
        spec: the name of a spec, or an instance.
        hyper_parameters: the hyper-parameters to set, by name.

    Raises:
        ValueError: if there is no spec of that name.
        HyperParameterError: if the spec does not have one of the
            hyper-parameters.
    """
    if isinstance(spec, Spec):
        spec_class = type(spec)
    elif isinstance(spec, str) and spec in SPECS:
        spec_class = SPECS[spec]
    else:
        raise choose("spec", spec, SPECS)
    fields = [field.name for field in dataclasses.fields(spec_class)]
    for name in hyper_parameters:
        if name not in fields:
            raise HyperParameterError(
                f"{spec_class.name} hyper-parameter: got {name!r}, expected "
                f"one of {', '.join(map(repr, fields))}. Remove the argument "
                "or correct its name."
            )
    values = {
        name: _hashable(value) for name, value in hyper_parameters.items()
    }
    if isinstance(spec, Spec):
        return dataclasses.replace(spec, **values)
    return spec_class(**values)


def _hashable(value: Any) -> Any:
    # Specs are hashable and are saved as JSON, which reads tuples as lists
    # and has no NumPy scalars.
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return value.item() if isinstance(value, np.generic) else value
