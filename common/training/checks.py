"""Checks of the user's input, which run before anything is compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import BatchError
from common.models.checks import is_int
from common.protocol import Loss, Shaped, Spec
from common.training import losses

NO_TARGETS = object()

Losses = Mapping[str, Loss]


@runtime_checkable
class Fit(Protocol):
    """Tells whether a batch fits the model of a trainer."""

    def check_inputs(self, xs: Any) -> None:
        """Checks a batch of inputs.

        Raises:
            BatchError: with the actual and the expected value.
        """
        ...

    def check_sizes(self, xs: Any, ys: Any, training: bool) -> None:
        """Checks the number of examples in a batch with targets.

        Raises:
            BatchError: with the actual and the expected value.
        """
        ...

    def predictions_like(self, xs: Any, training: bool) -> Any:
        """Returns the shapes and dtypes of the predictions for a batch.

        Nothing is compiled. `None` if they are not known.
        """
        ...


class BatchChecks:
    """Checks batches for one trainer, each combination of shapes once."""

    def __init__(self, fit: Fit, loss: Loss | None, metrics: Losses):
        """Makes the checks.

        Args:
            fit: checks the inputs.
            loss: determines the targets. If `None`, as for a model with a
                step of its own, they may be anything.
            metrics: further functions of predictions and targets, by name.
        """
        self._fit = fit
        self._loss = loss
        self._metrics = metrics
        self._seen: set[Any] = set()

    def has_seen(self, xs: Any, ys: Any, training: bool) -> bool:
        """Returns whether a batch of these shapes and dtypes has passed."""
        return _signature(xs, ys, training) in self._seen

    def check(self, xs: Any, ys: Any, training: bool) -> None:
        """Checks a batch, whose targets may be `NO_TARGETS`.

        Raises:
            BatchError: if the batch does not fit the model.
        """
        self._fit.check_inputs(xs)
        predictions = self._fit.predictions_like(xs, training)
        if ys is not NO_TARGETS:
            self._check_targets(xs, ys, predictions, training)
        signature = _signature(xs, ys, training)
        if signature is not None:
            self._seen.add(signature)

    def _check_targets(self, xs, ys, predictions, training) -> None:
        check_targets = next(
            (f for known, f in TARGET_CHECKS if known is self._loss), None
        )
        if check_targets is not None and predictions is not None:
            _check_targets_structure(predictions, ys)
        for leaf in jax.tree.leaves(ys):
            check_array("targets", leaf)
        self._fit.check_sizes(xs, ys, training)
        if predictions is None:
            return
        if check_targets is not None:
            check_targets(predictions, ys)
        targets = struct_of(ys)
        if self._loss is not None:
            _check_scalar(
                "loss", self._loss, predictions, targets, np.floating
            )
        for name, metric in self._metrics.items():
            what = f"metric {name!r}"
            _check_scalar(what, metric, predictions, targets, np.generic)


def _signature(xs: Any, ys: Any, training: bool) -> Any:
    leaves, treedef = jax.tree.flatten((xs, ys))
    try:
        types = tuple(
            [(x.shape, x.dtype) for x in leaves if x is not NO_TARGETS]
        )
    except AttributeError:  # not an array
        return None
    return types, treedef, training


class SpecFit:
    """Tells whether a batch fits the model of a spec."""

    def __init__(self, spec: Spec, dtype: str):
        self._spec = spec
        self._dtype = dtype

    def check_inputs(self, xs: Any) -> None:
        """Checks the rank, the sizes and the dtype of a batch of inputs.

        Raises:
            BatchError: with the actual and the expected shape or dtype.
        """
        expected, tree = jax.tree.flatten(
            self._spec.inputs, is_leaf=lambda x: isinstance(x, Shaped)
        )
        leaves, got = jax.tree.flatten(xs)
        if isinstance(self._spec.inputs, Shaped):
            check_array("inputs", xs)
        if got != tree:
            raise BatchError(
                f"inputs: got the structure {got}, expected {tree}. Pass the "
                "inputs in the structure of `spec.inputs`."
            )
        for leaf, shaped in zip(leaves, expected, strict=True):
            _check_input(leaf, shaped, self._dtype)

    def check_sizes(self, xs: Any, ys: Any, training: bool) -> None:
        """Checks that there is a target for each example, and enough of them.

        Raises:
            BatchError: with the actual and the expected number.
        """
        size = batch_size_of(xs)
        for leaf in jax.tree.leaves(ys):
            if leaf.ndim == 0 or len(leaf) != size:
                raise BatchError(
                    f"targets: got shape {_shape(leaf.shape)}, expected one "
                    f"for each of the {size} inputs. Pass one target for "
                    "each input."
                )
        spec = self._spec
        if training and size < spec.min_batch_size:
            raise BatchError(
                f"batch: got {size} example(s), expected at least "
                f"{spec.min_batch_size} to train {spec.name!r}, because its "
                "BatchNorm needs a batch variance. Use a larger batch."
            )

    def predictions_like(self, xs: Any, training: bool) -> Any:
        """Returns the shapes and dtypes of the predictions for a batch."""
        del training  # they are the same
        return predictions_like(self._spec, xs, self._dtype)


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


def _check_input(x: Any, expected: Shaped, dtype: str) -> None:
    check_array("inputs", x)
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


def _check_scalar(
    what: str, function: Loss, predictions: Any, targets: Any, kind: type
) -> None:
    """Checks what a loss or a metric returns, without running it."""
    try:
        value = jax.eval_shape(function, predictions, targets)
    except Exception as error:
        raise BatchError(
            f"{what}: got {type(error).__name__}({str(error)!r}), expected a "
            f"scalar for predictions {describe(predictions)} and targets "
            f"{describe(targets)}. Correct the function, or pass the targets "
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
            f"{what}: got {describe(value)}, expected a {sort}. "
            f"{how_to_reduce}"
        )


def check_steps(steps: int) -> None:
    """Checks a number of training steps.

    Raises:
        ValueError: if it is less than 1.
    """
    if steps < 1:
        raise ValueError(
            f"steps: got {steps}, expected 1 or more. Ask for at least one "
            "training step, such as `steps=1`."
        )


def check_fit(
    size: int, epochs: int, batch_size: int, min_batch_size: int = 1
) -> None:
    """Checks the arguments of `fit` for a data set of `size` examples.

    Raises:
        BatchError: with the actual and the expected value.
    """
    for what, value in (("batch_size", batch_size), ("epochs", epochs)):
        if not isinstance(value, int | np.integer):
            raise BatchError(
                f"{what}: got {value!r}, expected an integer. Pass one such "
                "as 32, without a decimal point or quotes."
            )
    if not min_batch_size <= batch_size <= size:
        raise BatchError(
            f"batch_size: got {batch_size}, expected a value from "
            f"{min_batch_size} to {size}, the number of examples. Pass "
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
        check_array("targets", ys)
    elif got != want:
        raise BatchError(
            f"targets: got the structure {got}, expected {want} like the "
            "predictions. Pass the targets in this structure."
        )


def _check_mse_targets(predictions, ys) -> None:
    # A target of another shape would silently broadcast.
    if describe(ys) != describe(predictions):
        raise BatchError(
            f"targets: got {describe(ys)}, expected "
            f"{describe(predictions)} like the predictions. Reshape or cast "
            "the targets."
        )


def _check_label_targets(predictions, ys) -> None:
    want = predictions.shape[:-1]
    if ys.shape != want or not jnp.issubdtype(ys.dtype, jnp.integer):
        raise BatchError(
            f"targets: got {describe(ys)}, expected integer labels of shape "
            f"{_shape(want)}. Pass class indices, not one-hot vectors."
        )


# Not a dict, because a callable need not be hashable.
TARGET_CHECKS: tuple[tuple[Loss, Callable[[Any, Any], None]], ...] = (
    (losses.mse, _check_mse_targets),
    (losses.cross_entropy, _check_label_targets),
)


def check_examples(xs: Any, ys: Any) -> int:
    """Returns the number of examples of a data set.

    Raises:
        BatchError: if not all arrays have the same number of rows.
    """
    for what, tree in (("inputs", xs), ("inputs and targets", (xs, ys))):
        require_one_size(what, tree)
    return batch_size_of(xs)


def require_one_size(what: str, tree: Any) -> None:
    """Checks that all arrays of a tree have the same number of rows.

    Raises:
        BatchError: with the shapes.
    """
    sizes = {x.shape[:1] for x in jax.tree.leaves(tree)}
    if len(sizes) > 1 or () in sizes:
        raise BatchError(
            f"{what}: got {describe(tree)}, expected arrays whose first axis "
            "is the example, with the same number of examples. Give every "
            "array that axis."
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

    return jax.eval_shape(forward, struct_of(xs))


def check_array(what: str, x: Any) -> None:
    """Checks that something is an array.

    Raises:
        BatchError: if it is not.
    """
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise BatchError(
            f"{what}: got {type(x).__name__}, expected an array. Convert it "
            "with `jnp.asarray`."
        )


def struct_of(tree: Any) -> Any:
    """Returns a tree with the shapes and dtypes of its arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def describe(tree: Any) -> str:
    """Returns the dtypes and shapes of a tree, such as `float32(4, 3)`."""

    def describe(x):
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            return f"{x.dtype}{_shape(x.shape)}"
        return type(x).__name__

    described = jax.tree.map(describe, tree)
    return described if isinstance(described, str) else repr(described)


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
