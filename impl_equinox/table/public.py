"""The public layers of the installed Equinox."""

from typing import Any

import equinox as eqx

PREFIX, MODULE = "eqx.nn", eqx.nn

# Public names of `equinox.nn` that are not layers, and what they are.
NOT_LAYERS = {
    "State": "the state that stateful layers take and return",
    "StateIndex": "identifies a value in a State",
    "StatefulLayer": "the abstract class of stateful layers",
    "Shared": "shares arrays between other layers",
    "make_with_state": "constructs a model and its State",
    "delete_init_state": "removes the initial values from a model",
    "inference_mode": "switches a model to inference",
}


def public_layers() -> list[str]:
    """Returns the names of the layers in `equinox.nn`."""
    return [
        name
        for name in dir(eqx.nn)
        if not name.startswith("_") and name not in NOT_LAYERS
    ]


def find(name: str) -> Any:
    """Returns a public name of `equinox.nn`."""
    return getattr(eqx.nn, name)
