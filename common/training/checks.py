"""Checks of the user's input, which run before anything is compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import BatchError
from common.models.checks import is_int
from common.protocol import Loss, Shaped, Spec
from common.training import losses

NO_TARGETS = object()


class BatchChecks:
    """Checks batches for one trainer, each combination of shapes once."""

    def __init__(
        self, spec: Spec, loss: Loss, metrics: Mapping[str, Loss], dtype: str
    ):
        self._spec = spec
        self._loss = loss
        self._metrics = metrics
        self._dtype = dtype
        self._seen: set[Any] = set()

    def has_seen(self, xs: Any, ys: Any, training: bool) -> bool:
        """Returns whether a batch of these shapes and dtypes has passed."""
        return _signature(xs, ys, training) in self._seen

    def check(self, xs: Any, ys: Any, training: bool) -> None:
        """Checks a batch, whose targets may be `NO_TARGETS`.

        Raises:
            BatchError: if the batch does not fit the model.
        """
        if ys is NO_TARGETS:
            check_inputs(xs, self._spec, self._dtype)
        else:
            check_batch(
                self._spec,
                self._loss,
                xs,
                ys,
                self._dtype,
                training=training,
                metrics=self._metrics,
            )
        signature = _signature(xs, ys, training)
        if signature is not None:
            self._seen.add(signature)


def _signature(xs: Any, ys: Any, training: bool) -> Any:
    try:
        if ys is NO_TARGETS:
            return xs.shape, xs.dtype, training
        return xs.shape, xs.dtype, training, ys.shape, ys.dtype
    except AttributeError:  # a pytree, or not an array
        return None


def check_seed(seed: Any) -> int:
    """Returns a seed as a Python int, so that its type cannot change the key.

    Raises:
        ValueError: if the seed is not an integer of 32 bits.
    """
    is_integer = is_int(seed) or isinstance(seed, np.integer)
    if not is_integer or not 0 <= seed < 2**32:
        raise ValueError(
            f"seed: got {seed!r}, expected an int from 0 to {2**32 - 1}. "
            "Pass an integer in this range, such as 0."
        )
    return int(seed)


def check_inputs(xs: Any, spec: Spec, dtype: str) -> None:
    """Checks the rank, the sizes and the dtype of a batch of inputs.

    Raises:
        BatchError: with the actual and the expected shape or dtype.
    """
    expected, tree = jax.tree.flatten(
        spec.inputs, is_leaf=lambda x: isinstance(x, Shaped)
    )
    leaves, got = jax.tree.flatten(xs)
    if isinstance(spec.inputs, Shaped):
        _check_array("inputs", xs)
    if got != tree:
        raise BatchError(
            f"inputs: got the structure {got}, expected {tree}. Pass the "
            "inputs in the structure of `spec.inputs`."
        )
    for leaf, shaped in zip(leaves, expected, strict=True):
        _check_input(leaf, shaped, dtype)


def _check_input(x: Any, expected: Shaped, dtype: str) -> None:
    _check_array("inputs", x)
    want = ("B", *expected.shape)
    if x.ndim != len(want) or x.shape[1:] != expected.shape:
        raise BatchError(
            f"inputs: got shape {_shape(x.shape)}, expected {_shape(want)} "
            "(batch first, channels last). Reshape the inputs, or pass other "
            "sizes to `build`."
        )
    if expected.kind == "int":
        fits = jnp.issubdtype(x.dtype, jnp.integer)
        want_dtype = "an integer"
        how_to_cast = 'Cast the inputs with `.astype("int32")`.'
    else:
        fits = x.dtype == dtype
        want_dtype = dtype
        how_to_cast = (
            f'Cast the inputs with `.astype("{dtype}")`, or pass another '
            "`dtype` to `build`."
        )
    if not fits:
        raise BatchError(
            f"inputs: got dtype {x.dtype}, expected {want_dtype}. "
            f"{how_to_cast}"
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
        spec: the model, which determines the inputs.
        loss: the loss, which determines the targets.
        xs: a batch of inputs.
        ys: the targets, one for each input.
        dtype: the dtype of the model.
        training: whether BatchNorm computes batch statistics.
        metrics: further functions of predictions and targets, by name.

    Raises:
        BatchError: with the actual and the expected value.
    """
    check_inputs(xs, spec, dtype)
    size = batch_size_of(xs)
    predictions = predictions_like(spec, xs, dtype)
    check_targets = next(
        (check for known, check in TARGET_CHECKS if known is loss), None
    )
    if check_targets is not None:
        _check_targets_structure(predictions, ys)
    for leaf in jax.tree.leaves(ys):
        _check_array("targets", leaf)
        if leaf.ndim == 0 or len(leaf) != size:
            raise BatchError(
                f"targets: got shape {_shape(leaf.shape)}, expected one for "
                f"each of the {size} inputs. Pass one target for each input."
            )
    if training and size < spec.min_batch_size:
        raise BatchError(
            f"batch: got {size} example(s), expected at least "
            f"{spec.min_batch_size} to train {spec.name!r}, because its "
            "BatchNorm needs a batch variance. Use a larger batch."
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
    """Checks what a loss or a metric returns, without running it."""
    try:
        value = jax.eval_shape(function, predictions, targets)
    except Exception as error:
        raise BatchError(
            f"{what}: got {type(error).__name__}({str(error)!r}), expected a "
            f"scalar for predictions {_describe(predictions)} and targets "
            f"{_describe(targets)}. Correct the function, or pass the targets "
            "that it needs."
        ) from error
    if not (
        isinstance(value, jax.ShapeDtypeStruct)
        and value.shape == ()
        and jnp.issubdtype(value.dtype, kind)
    ):
        sort = "floating scalar" if kind is np.floating else "scalar"
        how_to_reduce = "Return one array of shape () with that dtype."
        if getattr(value, "shape", ()) != ():
            how_to_reduce = (
                "Reduce it to one number, for example with `jnp.mean`."
            )
        raise BatchError(
            f"{what}: got {_describe(value)}, expected a {sort}. "
            f"{how_to_reduce}"
        )


def check_steps(steps: int) -> None:
    """Checks a number of training steps.

    Raises:
        ValueError: if it is less than 1.
    """
    if steps < 1:
        raise ValueError(
            f"steps: got {steps}, expected 1 or more. Pass a positive number."
        )


def check_fit(spec: Spec, size: int, epochs: int, batch_size: int) -> None:
    """Checks the arguments of `fit` for a data set of `size` examples.

    Raises:
        BatchError: with the actual and the expected value.
    """
    for what, value in (("batch_size", batch_size), ("epochs", epochs)):
        if not isinstance(value, int | np.integer):
            raise BatchError(
                f"{what}: got {value!r}, expected an integer. Pass an int."
            )
    if not spec.min_batch_size <= batch_size <= size:
        raise BatchError(
            f"batch_size: got {batch_size}, expected a value from "
            f"{spec.min_batch_size} to {size}, the number of examples. Pass "
            "a `batch_size` in this range, or more examples."
        )
    if epochs < 0:
        raise BatchError(
            f"epochs: got {epochs}, expected 0 or more. Pass the number of "
            "epochs to complete."
        )


def _check_targets_structure(predictions, ys) -> None:
    want, got = jax.tree.structure(predictions), jax.tree.structure(ys)
    if want == jax.tree.structure(0):
        _check_array("targets", ys)
    elif got != want:
        raise BatchError(
            f"targets: got the structure {got}, expected {want} like the "
            "predictions. Pass the targets in this structure."
        )


def _check_mse_targets(predictions, ys) -> None:
    # A target of another shape would silently broadcast.
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
            f"{_shape(want)}. Pass class indices, not one-hot vectors."
        )


# Not a dict, because a callable need not be hashable.
TARGET_CHECKS: tuple[tuple[Loss, Callable[[Any, Any], None]], ...] = (
    (losses.mse, _check_mse_targets),
    (losses.cross_entropy, _check_label_targets),
)


def batch_size_of(xs: Any) -> int:
    """Returns the length of the leading axis of a batch."""
    return len(jax.tree.leaves(xs)[0])


def predictions_like(spec: Spec, xs: Any, dtype: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of a spec's predictions for a batch.

    Nothing is computed.
    """

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
            f"{what}: got {type(x).__name__}, expected an array. Convert it "
            "with `jnp.asarray`."
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
