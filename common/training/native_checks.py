"""Checks of the inputs of a user's model, of which only the call is known."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from common.errors import BatchError
from common.native import NativeModel
from common.training.checks import (
    check_array,
    describe,
    require_one_size,
    struct_of,
)


class NativeFit:
    """Tells whether a batch fits a model, by tracing a call of it."""

    def __init__(self, model: NativeModel, dtype: str, own_step: bool):
        """Makes the checks.

        Args:
            model: the model.
            dtype: the widest floating dtype of its arrays.
            own_step: whether the model has a step of its own, which decides
                by itself what a training batch is.
        """
        self._own_step = own_step
        self._model = model
        self._dtype = dtype

    def check_inputs(self, xs: Any) -> None:
        """Checks that inputs are arrays with the same number of examples.

        A call or a step of the user's own decides by itself how many examples
        there are.

        Raises:
            BatchError: with the actual and the expected value.
        """
        leaves = jax.tree_util.tree_leaves_with_path(xs)
        if not leaves:
            raise BatchError(
                f"inputs: got {describe(xs)}, expected arrays for "
                f"{self._model.name}. Pass at least one array."
            )
        for _, x in leaves:
            check_array("inputs", x)
            self._check_width("inputs", x)
        if not (self._model.has_own_call or self._own_step):
            require_one_size("inputs", xs)

    def check_sizes(self, xs: Any, ys: Any, training: bool) -> None:
        """Checks the dtypes of the targets, whose number the loss decides.

        Raises:
            BatchError: with the actual and the expected dtype.
        """
        del xs, training
        for y in jax.tree.leaves(ys):
            self._check_width("targets", y)

    def _check_width(self, what: str, x: Any) -> None:
        """Checks that an array is not rounded to the model's dtype."""
        is_floating = jnp.issubdtype(x.dtype, jnp.inexact)
        if not is_floating or self._dtype == "float64":
            return
        if jnp.finfo(x.dtype).bits == 64:
            raise BatchError(
                f"{what}: got dtype {x.dtype}, expected at most the precision "
                f"of {self._model.name}, which is {self._dtype}. Cast the "
                f'{what} with `.astype("float32")`, or pass '
                '`dtype="float64"` to `build`.'
            )

    def predictions_like(self, xs: Any, training: bool) -> Any:
        """Returns the shapes and dtypes of the outputs for a batch.

        They are `None` for a training batch of a step of the model's own.

        Raises:
            BatchError: if the call raises an error, which is its cause.
        """

        if training and self._own_step:
            return None

        def call(arrays, xs, key):
            key = key if training else None
            return self._model.apply(arrays, xs, training=training, key=key)[0]

        try:
            return jax.eval_shape(
                call,
                struct_of(self._model.arrays()),
                struct_of(xs),
                jax.eval_shape(jr.key, 0),
            )
        except Exception as error:
            mode = "training" if training else "inference"
            raise BatchError(
                f"inputs: got {describe(xs)}, for which calling "
                f"{self._model.name} in {mode} mode raises "
                f"{type(error).__name__}({str(error)!r}), expected inputs "
                "that the call takes. Correct the inputs, or pass `call` to "
                "`build`, which says how to call the model on a batch."
            ) from error
