"""The public layers of the installed Equinox."""

from typing import Any

import equinox as eqx

# What `equinox.nn` has besides layers.
NOT_LAYERS = {
    "State": "what stateful layers thread",
    "StateIndex": "the address of a value in a State",
    "StatefulLayer": "the abstract class of layers that own one",
    "Shared": "ties arrays of other layers; see `impl_equinox.state.aliases`",
    "make_with_state": "builds a model and its State",
    "delete_init_state": "drops the initial values",
    "inference_mode": "switches training off",
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
