"""The public layers of the installed Flax NNX."""

import inspect
from typing import Any

from flax import nnx
from flax.nnx.nn import activations

# What `nnx` has besides layers, among its modules and its layers' functions.
NOT_LAYERS = {
    "Module": "the class of all modules",
    "RNNCellBase": "the abstract class of cells",
    "LoRAParam": "the type of LoRA's Variables",
    "Dict": "a container of modules",
    "List": "a container of modules",
    "dot_product_attention": "what MultiHeadAttention calls",
    "make_attention_mask": "makes a mask",
    "make_causal_mask": "makes a mask",
    "combine_masks": "makes a mask",
}


def public_layers() -> list[str]:
    """Returns the names of the layers in `flax.nnx`.

    They are its modules, and the functions that its layers' files export.
    """
    return [
        name
        for name, it in vars(nnx).items()
        if not name.startswith("_")
        and name not in NOT_LAYERS
        and (_is_layer(it) or name in activations.__all__)
    ]


def find(name: str) -> Any:
    """Returns a public name of `flax.nnx`."""
    return getattr(nnx, name)


def _is_layer(it: Any) -> bool:
    home = getattr(it, "__module__", None) or ""
    if inspect.isclass(it):
        return issubclass(it, nnx.Module)
    return inspect.isfunction(it) and home.startswith(
        ("flax.nnx.nn.", "flax.linen.pooling")
    )
