"""`build`: makes a `Trainer` from a spec and the name of a backend."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax
from jax.typing import DTypeLike

from common.environment import flag
from common.errors import choose
from common.models import find_spec
from common.protocol import Loss, Spec
from common.registry import find_backend, find_model
from common.training import checks, losses
from common.training.trainer import Trainer

DTYPES = ("float32", "float64")


def find_dtype(dtype: DTypeLike) -> str:
    """Returns the name of a dtype that a model can have.

    Raises:
        ValueError: if a model cannot have this dtype.
    """
    name: Any = dtype
    if not isinstance(dtype, str | None):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            pass
    if not isinstance(name, str) or name not in DTYPES:
        raise choose("dtype", name, DTYPES)
    return name


def build(
    spec: str | Spec = "stateful_mlp",
    *,
    backend: str | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: str | Loss | None = None,
    metrics: str | Sequence[str] | Mapping[str, str | Loss] | None = None,
    seed: Any = 0,
    dtype: DTypeLike = "float32",
    **hyper_parameters: Any,
) -> Trainer:
    """Builds a model in one library, ready to train.

    The initial values depend only on the spec and the seed, so they are the
    same in every backend.

    Args:
        spec: a name from `specs()`, or a spec instance.
        backend: a name from `backends()`; `"nnx"` means `"flax"`. There is
            no default.
        optimizer: any optax transformation that takes one gradient of the
            whole batch, including those that require `value`, `grad`,
            `value_fn`, `obj_fn` or `grad_fn`. It sees parameters as a flat
            dict by canonical name, so masks and labels are functions of such
            a dict. The arrays have canonical axis order if the order affects
            the update, and the library's own order otherwise. If `None`, the
            spec's default optimizer.
        loss: `"mse"`, `"cross_entropy"` or a callable
            `(predictions, targets) -> scalar`. By default, the spec's loss.
        metrics: a name, several names, or a dict from names to callables like
            a loss. By default, the spec's metrics.
        seed: an integer of 32 bits. It determines the initial values, the
            dropout masks and the data order.
        dtype: the dtype of all floating arrays, `"float32"` or `"float64"`.
        **hyper_parameters: fields of the spec to set.

    Returns:
        A trainer at step 0.

    Raises:
        ValueError: for an unknown name, an optimizer that cannot be traced,
            or `"float64"` without x64.
        HyperParameterError: for one that the spec does not have.
        BackendNotInstalledError: if the backend's library is missing.
        ModelNotFoundError: if the backend has no model class for the spec.
    """
    make_backend = find_backend(backend)
    spec = find_spec(spec, hyper_parameters)
    model_class = find_model(backend, spec)
    dtype = find_dtype(dtype)
    if dtype == "float64" and not flag("jax_enable_x64"):
        raise ValueError(
            "dtype: got 'float64' while x64 is off, expected x64 to be on. "
            'Call `jax.config.update("jax_enable_x64", True)` first.'
        )
    if not flag("jax_threefry_partitionable"):
        raise ValueError(
            "jax_threefry_partitionable: got False, expected True, because "
            "the libraries draw different random numbers without it. Call "
            '`jax.config.update("jax_threefry_partitionable", True)`.'
        )
    return Trainer(
        spec,
        functools.partial(make_backend, spec, model_class),
        optimizer=optimizer,
        loss=losses.find_loss(spec.loss if loss is None else loss),
        metrics=losses.find_metrics(
            spec.metrics if metrics is None else metrics
        ),
        seed=checks.check_seed(seed),
        dtype=dtype,
    )
