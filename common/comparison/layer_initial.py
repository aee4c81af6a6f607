"""Measures how each library draws the initial values of a layer's arrays.

The layers are constructed with 100 inputs and many outputs. A distribution is
recognized by the largest magnitude in units of the standard deviation, which
is 1.73 for a uniform distribution, 2.27 for a normal one that is cut at two
standard deviations, and about 3 for 400 numbers from a normal one.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from common.layers import Layer
from common.layers.table import LAYERS
from common.registry import find_counterpart

INPUTS = 100
UNIFORM, TRUNCATED = 2.0, 2.5
"""Smaller ratios are those of these distributions."""

_CONV = {
    "in_channels": 25,  # 100 with a kernel of two by two
    "out_channels": 400,
    "kernel_size": (2, 2),
    "stride": (1, 1),
    "padding": ((0, 0), (0, 0)),
    "dilation": (1, 1),
    "groups": 1,
}
_CELL = {"input_size": 100, "hidden_size": 100}
_ATTENTION = {"num_heads": 2}
_SIZES = {"query_size": 100, "output_size": 400}

WIDE: dict[str, dict[str, Any]] = {
    "linear": {"in_features": 100, "out_features": 400},
    "sequential": {"sizes": (100, 400)},
    "mlp": {"in_size": 100, "out_size": 400, "width_size": 100, "depth": 1},
    "linear_general": {
        "in_features": (100,),
        "out_features": (400,),
        "axis": (-1,),
        "groups": (),
        "rest": (),
    },
    "einsum": {
        "equation": "...i,io->...o",
        "shape": (100, 400),
        "bias_shape": (400,),
        "size": (100,),
    },
    "lora": {"in_features": 100, "rank": 100, "out_features": 400},
    "lora_linear": {"in_features": 100, "rank": 100, "out_features": 400},
    "conv": _CONV,
    "masked_conv": _CONV | {"input_dilation": (1, 1), "mask": None},
    "conv_transpose": _CONV | {"output_padding": (0, 0)},
    "batch_norm": {},
    "layer_norm": {},
    "rms_norm": {"use_bias": True},
    "group_norm": {},
    "instance_norm": {},
    "spectral_norm": {"in_features": 100, "out_features": 400},
    "weight_norm": {"in_features": 100, "out_features": 400},
    "lstm_cell": _CELL,
    "optimized_lstm_cell": _CELL,
    "gru_cell": _CELL,
    "simple_cell": _CELL,
    "rnn": _CELL,
    "bidirectional": _CELL,
    "multihead_attention": _ATTENTION
    | _SIZES
    | {"kv_size": 100, "head_size": 100, "use_bias": True},
    "unequal_attention": _ATTENTION
    | _SIZES
    | {"key_size": 100, "value_size": 100, "qk_size": 100, "vo_size": 100},
    "grouped_query_attention": _ATTENTION
    | _SIZES
    | {"num_kv_heads": 1, "kv_size": 100, "head_size": 100, "use_bias": True},
    "rotary_attention": _ATTENTION | {"size": 100, "head_size": 100},
    "embedding": {"num_embeddings": 400, "features": 100},
    "embedding_attend": {"num_embeddings": 400, "features": 100},
    "prelu": {},
}
"""The settings of each row with arrays, at which they are measured."""


class Initial(NamedTuple):
    """How both libraries fill an array of a new layer.

    Attributes:
        array: the canonical name.
        shape: its shape at the settings in `WIDE`.
        equinox: the distribution in Equinox.
        flax: the distribution in Flax.
    """

    array: str
    shape: tuple[int, ...]
    equinox: str
    flax: str

    @property
    def differs(self) -> bool:
        """Whether the two distributions are not the same."""
        return self.equinox != self.flax


def initial_values(row: type[Layer]) -> list[Initial]:
    """Measures the initial values of all arrays of a row, in both libraries.

    Raises:
        ValueError: if the row has arrays but no settings in `WIDE`.
    """
    if not row().variables():
        return []
    if row.name not in WIDE:
        raise ValueError(
            f"initial values of {row.name!r}: got no settings, expected some "
            f"with {INPUTS} inputs. Add them to `WIDE`."
        )
    layer = row(**WIDE[row.name])
    equinox, flax = (
        _arrays(find_counterpart(library, layer).initial(seed=0))
        for library in ("equinox", "flax")
    )
    return [
        Initial(
            name,
            variable.shape,
            describe(equinox[name]),
            describe(flax[name]),
        )
        for name, variable in layer.variables().items()
    ]


def _arrays(groups: tuple[Any, Any]) -> dict[str, np.ndarray]:
    params, buffers = jax.device_get(groups)
    return {**params, **buffers}


def describe(x: np.ndarray) -> str:
    """Returns the distribution of a sample and its standard deviation."""
    first = x.ravel()[0]
    if np.all(x == first):
        return f"{first!s}" if x.dtype == bool else f"{first:g}"
    x = x.astype(np.float64)
    mean, std = float(x.mean()), float(x.std())
    if abs(mean) > std:
        return f"mean {mean:#.2g}, std {std:#.2g}"
    if x.ndim == 1 and abs(np.sum(x * x) - 1) < 1e-3:
        return "a unit vector"
    if _is_orthogonal(x):
        return f"orthogonal, std {std:#.2g}"
    largest = float(np.abs(x).max())
    if largest < UNIFORM * std:
        return f"uniform, std {_expected(largest, x.size) / 3**0.5:#.2g}"
    cut = largest < TRUNCATED * std
    return f"{'truncated ' * cut}normal, std {std:#.2g}"


def _expected(largest: float, count: int) -> float:
    """Returns the limit of a uniform distribution from its largest number.

    This is closer than what follows from the standard deviation.
    """
    return largest * (count + 1) / count


def _is_orthogonal(x: np.ndarray) -> bool:
    """Whether the columns are orthogonal and equally long."""
    if x.ndim != 2 or not 1 < x.shape[1] <= x.shape[0]:
        return False
    products = x.T @ x / np.mean(np.sum(x * x, axis=0))
    return bool(np.abs(products - np.eye(len(products))).max() < 1e-3)


ROWS_WITH_ARRAYS = tuple(
    name for name, row in LAYERS.items() if row().variables()
)
