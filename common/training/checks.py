"""Checks of what users pass in, made before anything is compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import BatchError
from common.models.checks import is_int
from common.protocol import Loss, Shaped, Spec
from common.training import losses


def check_seed(seed: Any) -> int:
    """Returns a seed as a Python int; all dtypes make one key of it.

    Raises:
        ValueError: if it is no integer, or one that needs more than 32 bits.
    """
    is_integer = is_int(seed) or isinstance(seed, np.integer)
    if not is_integer or not 0 <= seed < 2**32:
        raise ValueError(
            f"seed: got {seed!r}, expected an int from 0 to {2**32 - 1}. "
            "Pick one of these."
        )
    return int(seed)


def check_inputs(xs: Any, spec: Spec, dtype: str) -> None:
    """Checks the rank, the sizes and the dtype of a batch of inputs.

    Raises:
        BatchError: naming both sides.
    """
    expected, tree = jax.tree.flatten(
        spec.inputs, is_leaf=lambda x: isinstance(x, Shaped)
    )
    leaves, got = jax.tree.flatten(xs)
    if isinstance(spec.inputs, Shaped):
        _check_array("inputs", xs)
    if got != tree:
        raise BatchError(
            f"inputs: got the structure {got}, expected {tree}. Pass them "
            "in the spec's structure."
        )
    for leaf, shaped in zip(leaves, expected, strict=True):
        _check_input(leaf, shaped, dtype)


def _check_input(x: Any, expected: Shaped, dtype: str) -> None:
    _check_array("inputs", x)
    want = ("B", *expected.shape)
    if x.ndim != len(want) or x.shape[1:] != expected.shape:
        raise BatchError(
            f"inputs: got shape {_shape(x.shape)}, expected {_shape(want)} "
            "(batch first, channels last). Reshape them, or set the sizes in "
            "`build`."
        )
    if expected.kind == "int":
        fits, want_dtype = jnp.issubdtype(x.dtype, jnp.integer), "an integer"
    else:
        fits, want_dtype = x.dtype == dtype, dtype
    if not fits:
        raise BatchError(
            f"inputs: got dtype {x.dtype}, expected {want_dtype}. Cast them "
            f'with `.astype("{dtype}")`, or pass another `dtype` to `build`.'
        )


def check_batch(
    spec: Spec,
    loss: Loss,
    xs: Any,
    ys: Any,
    dtype: str,
    *,
    training: bool,
    metrics: Mapping[str, Loss] | None = None,
) -> None:
    """Checks a batch of inputs and targets against a spec and a loss.

    Args:
        spec: what the inputs must be like.
        loss: what the targets must be like.
        xs: a batch of inputs.
        ys: as many targets.
        dtype: of the model.
        training: whether BatchNorm takes statistics.
        metrics: more functions like the loss, by name.

    Raises:
        BatchError: naming both sides.
    """
    check_inputs(xs, spec, dtype)
    size = batch_size_of(xs)
    predictions = predictions_like(spec, xs, dtype)
    check_targets = next((f for it, f in TARGET_CHECKS if it is loss), None)
    if check_targets is not None:
        _check_targets_structure(predictions, ys)
    for leaf in jax.tree.leaves(ys):
        _check_array("targets", leaf)
        if leaf.ndim == 0 or len(leaf) != size:
            raise BatchError(
                f"targets: got shape {_shape(leaf.shape)}, expected one for "
                f"each of the {size} inputs. Pass as many targets as inputs."
            )
    if training and size < spec.min_batch_size:
        raise BatchError(
            f"batch: got {size} example(s), expected at least "
            f"{spec.min_batch_size} to train {spec.name!r}, whose BatchNorm "
            "has no variance otherwise. Use a larger batch."
        )
    if check_targets is not None:
        check_targets(predictions, ys)
    targets = jax.tree.map(_struct, ys)
    _check_scalar("loss", loss, predictions, targets, np.floating)
    for name, metric in (metrics or {}).items():
        what = f"metric {name!r}"
        _check_scalar(what, metric, predictions, targets, np.generic)


def _check_scalar(
    what: str, function: Loss, predictions: Any, targets: Any, kind: type
) -> None:
    """Checks what a loss or a metric returns, running nothing."""
    try:
        value = jax.eval_shape(function, predictions, targets)
    except Exception as error:
        raise BatchError(
            f"{what}: got {type(error).__name__}({str(error)!r}), expected a "
            f"scalar of predictions {_describe(predictions)} and targets "
            f"{_describe(targets)}. Mend the function or the targets."
        ) from error
    if not (
        isinstance(value, jax.ShapeDtypeStruct)
        and value.shape == ()
        and jnp.issubdtype(value.dtype, kind)
    ):
        sort = "floating scalar" if kind is np.floating else "scalar"
        raise BatchError(
            f"{what}: got {_describe(value)}, expected a {sort}. Average "
            "over the batch."
        )


def check_steps(steps: int) -> None:
    """Checks a number of training steps.

    Raises:
        ValueError: if there are none.
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected 1 or more. Raise it.")


def check_fit(spec: Spec, size: int, epochs: int, batch_size: int) -> None:
    """Checks the settings of `fit` on `size` examples.

    Raises:
        BatchError: naming both sides.
    """
    for what, value in (("batch_size", batch_size), ("epochs", epochs)):
        if not isinstance(value, int | np.integer):
            raise BatchError(
                f"{what}: got {value!r}, expected a whole number. Change it."
            )
    if not spec.min_batch_size <= batch_size <= size:
        raise BatchError(
            f"batch_size: got {batch_size}, expected a value from "
            f"{spec.min_batch_size} to {size}, the number of examples. "
            "Change it."
        )
    if epochs < 0:
        raise BatchError(
            f"epochs: got {epochs}, expected 0 or more. Change it."
        )


def _check_targets_structure(predictions, ys) -> None:
    want, got = jax.tree.structure(predictions), jax.tree.structure(ys)
    if want == jax.tree.structure(0):
        _check_array("targets", ys)
    elif got != want:
        raise BatchError(
            f"targets: got the structure {got}, expected {want} like the "
            "predictions. Pass them in this structure."
        )


def _check_mse_targets(predictions, ys) -> None:
    # A target of another shape would broadcast, without a word.
    if _describe(ys) != _describe(predictions):
        raise BatchError(
            f"targets: got {_describe(ys)}, expected "
            f"{_describe(predictions)} like the predictions. Reshape or cast "
            "the targets."
        )


def _check_label_targets(predictions, ys) -> None:
    want = predictions.shape[:-1]
    if ys.shape != want or not jnp.issubdtype(ys.dtype, jnp.integer):
        raise BatchError(
            f"targets: got {_describe(ys)}, expected integer labels of shape "
            f"{_shape(want)}. Pass class indices."
        )


# By identity: a callable need not be hashable.
TARGET_CHECKS: tuple[tuple[Loss, Callable[[Any, Any], None]], ...] = (
    (losses.mse, _check_mse_targets),
    (losses.cross_entropy, _check_label_targets),
)


def batch_size_of(xs: Any) -> int:
    """Returns the length of the leading axis of a batch."""
    return len(jax.tree.leaves(xs)[0])


def predictions_like(spec: Spec, xs: Any, dtype: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of a spec's predictions, running nothing."""

    def forward(xs):
        params, buffers = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x,
            spec.init(jax.random.key(0)),
        )
        return spec.forward(params, buffers, xs, key=None, training=False)[0]

    return jax.eval_shape(forward, jax.tree.map(_struct, xs))


def _check_array(what: str, x: Any) -> None:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise BatchError(
            f"{what}: got {type(x).__name__}, expected an array. Wrap it in "
            "`jnp.asarray`."
        )


def _struct(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _describe(tree: Any) -> str:
    def describe(x):
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            return f"{x.dtype}{_shape(x.shape)}"
        return type(x).__name__

    described = jax.tree.map(describe, tree)
    return described if isinstance(described, str) else repr(described)


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
