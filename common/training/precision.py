"""Mixed precision: float32 parameters, and products in a narrower dtype."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from common.errors import choose

COMPUTE_DTYPES = ("bfloat16", "float16")
"""The dtypes that `build(compute_dtype=...)` takes."""
PARAMETERS = "float32"
"""The dtype of the parameters, the optimizer state and the statistics."""


def find_compute_dtype(compute_dtype: DTypeLike | None) -> str | None:
    """Returns the name of a dtype to compute in, or `None`.

    Raises:
        ValueError: if it is not one of `COMPUTE_DTYPES`.
    """
    if compute_dtype is None:
        return None
    return find_name("compute_dtype", compute_dtype, COMPUTE_DTYPES)


def find_name(what: str, dtype: Any, choices: Sequence[str]) -> str:
    """Returns the name of a dtype that is one of the valid ones.

    Args:
        what: the name of the argument.
        dtype: a name, or anything that NumPy takes for a dtype.
        choices: the valid names.

    Raises:
        ValueError: if it is not one of them.
    """
    name = dtype
    if not isinstance(dtype, str | None):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            pass
    if not isinstance(name, str) or name not in choices:
        raise choose(what, name, choices)
    return name


def require_parameters(dtype: str, compute_dtype: str | None) -> None:
    """Checks that the parameters of mixed precision are float32.

    Args:
        dtype: the dtype of the parameters, the widest if there are several.
        compute_dtype: as `find_compute_dtype` returns it.

    Raises:
        ValueError: if they are not.
    """
    if compute_dtype is not None and dtype != PARAMETERS:
        raise ValueError(
            f"dtype with compute_dtype={compute_dtype!r}: got {dtype!r}, "
            f"expected {PARAMETERS!r}, the dtype of the parameters in mixed "
            f'precision. Pass `dtype="{PARAMETERS}"`, or leave '
            "`compute_dtype` out."
        )


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """Casts the floating arrays of a tree; other arrays stay as they are.

    Args:
        tree: any tree.
        dtype: the new dtype, or `None` to cast nothing.
    """
    if dtype is None:
        return tree

    def one(x):
        is_float = hasattr(x, "dtype") and jnp.issubdtype(
            x.dtype, jnp.floating
        )
        return jnp.asarray(x, dtype) if is_float else x

    return jax.tree.map(one, tree)


def widened(predictions: Any, compute_dtype: str | None) -> Any:
    """Returns the predictions that the loss and the metrics are given.

    Args:
        predictions: what the model returned for a batch.
        compute_dtype: the dtype that it computed in; `None` if that is the
            dtype of its parameters, and then nothing is cast.
    """
    return cast(predictions, None if compute_dtype is None else PARAMETERS)
