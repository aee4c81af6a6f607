"""What is compiled of each model: inference, and a step of training."""

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from common.alignment.sides import ARRAY_VALUE_ERRORS
from common.comparison.halves import Arrays, Half, host
from common.comparison.inspection import Inspection, inspect
from common.comparison.lockstep import ROUND_OFF_ULPS
from common.protocol import Loss

SIDES = ("left", "right")


class Program:
    """The compiled functions of one half.

    Attributes:
        half: the model.
        outputs: the paths of the outputs.
        inference: what is known of the program for inference.
        step_inspection: what is known of the program of a training step.
    """

    def __init__(
        self,
        half: Half,
        side: str,
        batch: tuple[Any, Any],
        loss: Loss,
        optimizer: optax.GradientTransformation,
    ):
        """Traces the program for inference.

        Args:
            half: the model.
            side: `"left"` or `"right"`, for messages.
            batch: the inputs and the targets.
            loss: of outputs and targets.
            optimizer: acts on the left's trained arrays.

        Raises:
            TypeError: if the model cannot be traced.
        """
        self.half, self._side = half, side
        self.batch, self._loss, self._optimizer = batch, loss, optimizer
        self.outputs: list[str] = []
        self.opt = optimizer.init(half.trained)
        try:
            self._infer = self._trace_inference()
        except TypeError as error:
            needs_values = isinstance(error.__cause__, ARRAY_VALUE_ERRORS)
            if not (needs_values and half.hold()):
                raise
            self._infer = self._trace_inference()
        self.inference: Inspection = inspect(self._infer.jaxpr)
        self.eps = 0.0
        self.training = True

    def held(self) -> Arrays:
        """Returns the other arrays on which the outputs depend."""
        arguments = (self.half.trained, self.half.rest, self.batch[0])
        leaves, _ = jax.tree_util.tree_flatten_with_path(arguments)
        jaxpr = self._infer.jaxpr.jaxpr
        used = {id(x) for equation in jaxpr.eqns for x in equation.invars}
        return {
            path[1].key: self.half.model.infos[path[1].key].value
            for (path, _), x in zip(leaves, jaxpr.invars, strict=True)
            if path[0].idx == 1 and id(x) in used
        }

    def trace_step(self, training: bool, eps: float) -> Inspection:
        """Traces a training step.

        Args:
            training: whether the model is called in training mode.
            eps: the machine epsilon of the comparison, below which gradients
                are round-off.
        """
        self.training, self.eps = training, eps
        self._step = self._trace(
            self._pure_step,
            "training",
            self.half.trained,
            self.half.rest,
            self.opt,
            self.batch,
        )
        return inspect(self._step.jaxpr)

    def compile(self) -> None:
        """Compiles what was traced."""
        self._run_infer = self._infer.lower().compile()
        self._run_step = self._step.lower().compile()

    def infer(self, trained: Arrays, rest: Arrays) -> tuple[Arrays, list[str]]:
        """Returns the outputs, and the arrays that the call changed."""
        outputs, before, after = jax.device_get(
            self._run_infer(trained, rest, self.batch[0])
        )
        changed = [
            name for name, x in after.items() if not _is_equal(x, before[name])
        ]
        return self.named(outputs), changed

    def step(self, trained: Arrays, rest: Arrays, opt: Any) -> Any:
        """Takes a step, and returns what `_pure_step` does."""
        return self._run_step(trained, rest, opt, self.batch)

    def named(self, outputs: Sequence[Any]) -> Arrays:
        """Returns the leaves of the outputs by path."""
        return host(dict(zip(self.outputs, outputs, strict=True)))

    def loss(self, outputs: Any) -> Any:
        """Computes the loss of outputs."""
        return self._loss(outputs, self.batch[1])

    def forward(
        self, arrays: Arrays, xs: Any, *, named: bool = False
    ) -> tuple[Any, Arrays]:
        """Calls the model with its own arrays, as a training step does."""
        key = jr.key(0) if self.training else None
        return self.half.apply(
            arrays, xs, training=self.training, key=key, named=named
        )

    def objective(
        self, trained: Arrays, rest: Arrays, xs: Any, *, named: bool = False
    ) -> tuple[Any, Any]:
        """Computes the loss; the outputs and the other arrays are extra."""
        arrays = self.half.arrays(trained, rest)
        outputs, rest = self.forward(arrays, xs, named=named)
        return self.loss(outputs), (outputs, rest)

    def update(
        self, gradients: Arrays, trained: Arrays, opt: Any
    ) -> tuple[Arrays, Any]:
        """Applies the optimizer."""
        updates, opt = self._optimizer.update(gradients, opt, trained)  # pyright: ignore
        return optax.apply_updates(trained, updates), opt  # pyright: ignore

    def gradients(self, gradients: Arrays) -> Arrays:
        """Sets the round-off in gradients to zero."""
        return without_noise(gradients, self.eps)

    def _pure_infer(self, trained, rest, xs):
        outputs, before, after = self.half.infer(trained, rest, xs)
        return self._leaves(outputs), before, after

    def _pure_step(self, trained, rest, opt, batch):
        (loss, (outputs, rest)), gradients = jax.value_and_grad(
            self.objective, has_aux=True
        )(trained, rest, batch[0])
        gradients = self.gradients(gradients)
        trained, opt = self.update(gradients, trained, opt)
        outputs = self._leaves(outputs)
        return trained, rest, opt, (loss, outputs, gradients)

    def _leaves(self, outputs: Any) -> tuple[Any, ...]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(outputs)
        if not self.outputs:  # the first trace; later the left's names stay
            self.outputs = [
                f"outputs{jax.tree_util.keystr(path)}" for path, _ in leaves
            ]
        return tuple(jnp.asarray(x) for _, x in leaves)

    def _trace_inference(self) -> Any:
        return self._trace(
            self._pure_infer,
            "inference",
            self.half.trained,
            self.half.rest,
            self.batch[0],
        )

    def _trace(self, function: Any, mode: str, *arguments: Any) -> Any:
        try:
            return jax.jit(function).trace(*arguments)
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            raise TypeError(
                f"{self._side} model: got {type(error).__name__} while "
                f"tracing it in {mode} mode ({line}), expected a call on "
                f"inputs of the shapes {_shapes(self.batch[0])} that "
                f"`jax.jit` accepts. Pass `{self._side}_call`, a function "
                "`(model, xs, *, training, key) -> (outputs, model)`, or "
                "other inputs."
            ) from error


def without_noise(gradients: Arrays, eps: float) -> Arrays:
    """Sets gradients that are negligible next to the largest to zero.

    Where the true gradient is zero, as that of a bias before a batch norm,
    Adam would make a full step of the rounding error.

    Args:
        gradients: by name.
        eps: the machine epsilon that they are computed with.
    """
    if not gradients:
        return gradients
    largest = jnp.max(
        jnp.array([jnp.max(jnp.abs(g), initial=0) for g in gradients.values()])
    )
    threshold = ROUND_OFF_ULPS * eps * largest
    return {
        name: jnp.where(jnp.abs(g) < threshold, jnp.zeros_like(g), g)
        for name, g in gradients.items()
    }


def compile_all(programs: Sequence[Program]) -> None:
    """Compiles several programs side by side."""
    # XLA releases the interpreter lock.
    with concurrent.futures.ThreadPoolExecutor(len(programs)) as pool:
        list(pool.map(Program.compile, programs))


class Run:
    """A model that is trained step by step.

    Attributes:
        program: what is run.
        trained: the left's trained arrays, now.
        rest: the model's other arrays, now.
        gradients: those of the last step.
    """

    def __init__(self, program: Program, trained: Mapping[str, Any]):
        self.program = program
        self.trained, self.rest = dict(trained), program.half.rest
        self.opt = program.opt
        self.gradients: Arrays = {}

    def infer(self) -> tuple[Arrays, list[str]]:
        """Returns the outputs, and the arrays that the call changed."""
        return self.program.infer(self.trained, self.rest)

    def step(self) -> tuple[Any, Arrays]:
        """Takes a step, and returns its loss and outputs."""
        self.trained, self.rest, self.opt, results = self.program.step(
            self.trained, self.rest, self.opt
        )
        loss, outputs, gradients = jax.device_get(results)
        self.gradients = host(gradients)
        return loss, self.program.named(outputs)

    def optimizer_state(self) -> Arrays:
        """Returns the arrays of the optimizer by name."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.opt)
        return host(
            {
                jax.tree_util.keystr(path, simple=True, separator="."): x
                for path, x in leaves
            }
        )


def nudge(trained: Arrays, eps: float) -> Arrays:
    """Returns arrays with one more rounding error in each element."""
    rng = np.random.default_rng(0)

    def one(x):
        signs = rng.choice((-1.0, 1.0), size=x.shape)
        wide = np.asarray(x, np.float64) * (1 + eps * signs)
        return jnp.asarray(wide, x.dtype)

    return {name: one(x) for name, x in trained.items()}


def _shapes(xs: Any) -> str:
    return ", ".join(str(np.shape(x)) for x in jax.tree.leaves(xs))


def _is_equal(a: Any, b: Any) -> bool:
    floating = jnp.issubdtype(a.dtype, jnp.floating)
    return np.array_equal(a, b, equal_nan=bool(floating))
