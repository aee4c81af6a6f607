"""What `port` asks of Equinox: files, batch norm and layers it knows."""

import pathlib
from typing import Any

import equinox as eqx

from impl_equinox import layers
from impl_equinox.calling import is_pair as is_pair
from impl_equinox.rules import RULES as RULES

PREFIX = "equinox.nn."
FILLS_IN_PLACE = False


def batch_norm(layer: Any) -> tuple[str, float] | None:
    """Returns the dialect and the momentum of a batch norm layer."""
    if isinstance(layer, eqx.nn.BatchNorm):
        return layer.mode, float(layer.momentum)
    if isinstance(layer, layers.BatchNorm):
        return "torch" if layer.unbiased else "standard", layer.momentum
    return None


def read_optimizer(optimizer: Any) -> tuple[Any, Any]:
    """Returns the optimizer's state; there is no count of steps."""
    return optimizer, None


def write_optimizer(optimizer: Any, tree: Any, step: Any) -> Any:
    """Returns the optimizer's new state."""
    del optimizer, step
    return tree


def read_file(path: pathlib.Path, like: Any) -> Any:
    """Reads a file of `eqx.tree_serialise_leaves`.

    A first line of JSON, as in Equinox's documentation, is left out.

    Args:
        path: the file.
        like: a model, or a pair of a model and its state, of the structure
            that was written. It may be abstract.

    Raises:
        ValueError: if the file is not one of such a structure.
    """
    with path.open("rb") as file:
        if file.read(1) == b"{":
            file.readline()
        else:
            file.seek(0)
        try:
            return eqx.tree_deserialise_leaves(file, like)
        except Exception as error:  # NumPy raises several types
            raise ValueError(
                f"file {str(path)!r}: got arrays that do not fit `like` "
                f"({error}), expected those of its structure. Pass `like=` a "
                "model that is constructed as the one that was written."
            ) from error
