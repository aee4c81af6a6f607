"""The public layers of the installed Flax NNX."""

import inspect
from typing import Any

from flax import nnx
from flax.nnx.nn import activations

PREFIX, MODULE = "nnx", nnx

# Public modules and functions of `flax.nnx` that are not layers.
NOT_LAYERS = {
    "Module": "the class of all modules",
    "RNNCellBase": "the abstract class of cells",
    "LoRAParam": "the Variable type of LoRA",
    "Dict": "a container of modules",
    "List": "a container of modules",
    "dot_product_attention": "the function that MultiHeadAttention calls",
    "make_attention_mask": "makes a mask",
    "make_causal_mask": "makes a mask",
    "combine_masks": "makes a mask",
}


def public_layers() -> list[str]:
    """Returns the names of the layers in `flax.nnx`.

    A layer is a module, or a function exported by a file of layers.
    """
    return [
        name
        for name, value in vars(nnx).items()
        if not name.startswith("_")
        and name not in NOT_LAYERS
        and (_is_layer(value) or name in activations.__all__)
    ]


def find(name: str) -> Any:
    """Returns a public name of `flax.nnx`."""
    return getattr(nnx, name)


def _is_layer(value: Any) -> bool:
    module = getattr(value, "__module__", None) or ""
    if inspect.isclass(value):
        return issubclass(value, nnx.Module)
    return inspect.isfunction(value) and module.startswith(
        ("flax.nnx.nn.", "flax.linen.pooling")
    )
