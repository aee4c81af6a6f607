"""`compare`: trains backends side by side and compares them."""

import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common import agreement
from common.comparison.judge import Judge
from common.comparison.mixed_precision import find_wrong_dtypes, in_float32
from common.comparison.report import Report
from common.environment import flag
from common.state import State
from common.training import checks
from common.training.trainer import Trainer

# An element smaller than this many ULPs of the largest gradient is round-off.
ROUND_OFF_ULPS = 64
# The name of the run that is the yardstick of mixed precision.
YARDSTICK = "in float32"


def compare(
    left: Trainer,
    right: Trainer,
    xs: Any,
    ys: Any,
    *,
    steps: int = 100,
) -> Report:
    """Trains two trainers side by side and reports where they diverge.

    Copies of both take `steps` jitted steps on the batch `(xs, ys)`, starting
    from their current states, with matrix products in full precision. The
    trainers themselves do not change.

    Args:
        left: a trainer.
        right: a trainer of the same model, in any backend.
        xs: a batch of inputs.
        ys: the targets, one for each input.
        steps: the number of training steps, at least 1.

    Returns:
        A report with one row for each quantity, in the order of proof.

    Raises:
        ValueError: if the trainers differ in their spec or dtype.
        BatchError: if the batch does not fit the model. Nothing is compiled
            in this case.
    """
    names = [left.backend.name, right.backend.name]
    if names[0] == names[1]:
        names = [f"{names[0]} (left)", f"{names[1]} (right)"]
    trainers = dict(zip(names, (left, right), strict=True))
    return compare_all(trainers, [(names[0], names[1])], xs, ys, steps=steps)


def compare_all(
    trainers: Mapping[str, Trainer],
    pairs: Sequence[tuple[str, str]],
    xs: Any,
    ys: Any,
    *,
    steps: int = 100,
    tick: Callable[[], None] = lambda: None,
) -> Report:
    """Trains several trainers side by side and compares pairs of them.

    Args:
        trainers: the trainers by the name that they have in the report.
        pairs: the names of the left and the right trainer of each comparison.
        xs: a batch of inputs.
        ys: the targets, one for each input.
        steps: the number of training steps, at least 1.
        tick: a function to call after every step.

    Returns:
        A report with one row for each quantity and pair.

    Raises:
        ValueError: if the trainers differ in their spec or dtypes.
        BatchError: if the batch does not fit the model. Nothing is compiled
            in this case.
    """
    checks.check_steps(steps)
    first = next(iter(trainers.values()))
    for trainer in trainers.values():
        _require_same(first, trainer)
        _require_one_model(trainer)
        trainer.check_batch(xs, ys)
    dtype = agreement.mixed(first.dtype, first.settings.compute_dtype)
    is_mixed = first.settings.compute_dtype is not None
    judge = Judge(
        dtype,
        pairs,
        nudged=YARDSTICK if is_mixed else None,
        pooled=is_mixed,
    )
    settings = _settings()

    # Compiling is most of the work, and it releases the interpreter lock.
    with concurrent.futures.ThreadPoolExecutor(
        len(trainers) + is_mixed
    ) as pool:

        def map_values(
            function: Callable[[Any], Any], values: Mapping[str, Any]
        ) -> dict[str, Any]:
            call = functools.partial(_call_with, settings, function)
            results = pool.map(call, values.values())
            return dict(zip(values, results, strict=True))

        if is_mixed:
            judge.operations(
                map_values(
                    lambda trainer: find_wrong_dtypes(trainer, xs, ys),
                    trainers,
                )
            )
            trainers = {**trainers, YARDSTICK: in_float32(first)}
        runs: dict[str, _Run] = map_values(_Run, trainers)
        originals = map_values(lambda trainer: trainer.state(), trainers)
        before = {name: run.state for name, run in runs.items()}
        judge.handed_over(before, originals)
        predictions = map_values(lambda run: run.predict(xs), runs)
        judge.values("forward", 0, predictions)

        losses: dict[str, list[float]] = {name: [] for name in runs}
        changed: dict[str, set[str]] = {name: set() for name in runs}
        states = before
        for step in range(1, steps + 1):
            step_losses = map_values(lambda run: run.step(xs, ys), runs)
            judge.losses(step, step_losses)
            for name, loss in step_losses.items():
                losses[name].append(float(loss))
            previous = states
            states = {name: run.state for name, run in runs.items()}
            for name, state in states.items():
                changed[name] |= changed_arrays(
                    previous[name].buffers, state.buffers
                )
            if step == 1:
                gradients = {name: run.gradients for name, run in runs.items()}
                judge.values("gradients", 1, gradients)
                judge.first_step(states)
            judge.state(step, states)
            tick()

        judge.stale(steps, before, changed)
        predictions = map_values(lambda run: run.predict(xs), runs)
        judge.values("eval", steps, predictions)
        judge.overwritten(
            steps, {name: run.changed for name, run in runs.items()}
        )

    return Report(
        spec=first.spec.name,
        hyper_parameters=dataclasses.asdict(first.spec),
        dtype=dtype,
        steps=steps,
        seed=first.seed,
        pairs=list(pairs),
        rows=judge.rows(),
        losses={name: x for name, x in losses.items() if name != YARDSTICK},
    )


def changed_arrays(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> set[str]:
    """Returns the names of the arrays with another value, bit for bit."""
    return {
        name
        for name, x in after.items()
        if not np.array_equal(x, before[name])
    }


def zero_round_off(
    gradients: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Sets the round-off in some gradients to zero.

    Args:
        gradients: gradients by canonical name.
        names: parameters with elements whose true gradient is zero, as
            `Spec.zero_gradient` lists them. Of these parameters, elements
            that are negligible compared to the largest gradient become zero.
    """
    largest = jnp.max(
        jnp.array([jnp.max(jnp.abs(g)) for g in gradients.values()])
    )

    def zero(g):
        threshold = ROUND_OFF_ULPS * jnp.finfo(g.dtype).eps * largest
        return jnp.where(jnp.abs(g) < threshold, jnp.zeros_like(g), g)

    return {
        name: zero(g) if name in names else g for name, g in gradients.items()
    }


def without_round_off(
    optimizer: optax.GradientTransformation, names: Collection[str]
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that receives gradients without their round-off.

    Adam amplifies the round-off of a gradient that is truly zero to a full
    step, in another direction in each backend. The optimizer's state stays
    as it is.

    Args:
        optimizer: an optax transformation on parameters by canonical name.
        names: the parameters, as for `zero_round_off`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra_args):
        updates = zero_round_off(updates, names)
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update)


class _Run:
    """A copy of a trainer that is trained step by step.

    Attributes:
        state: the State after the last step.
        gradients: the gradients of the last step, by canonical name.
        changed: the names of the arrays that the last prediction changed.
    """

    def __init__(self, trainer: Trainer):
        names = trainer.spec.zero_gradient
        self._trainer = trainer.with_optimizer(
            without_round_off(trainer.optimizer, names)
        ).load(trainer.state())
        self._leaves = self._trainer.leaves
        self._step = jax.jit(self._pure_step, donate_argnums=0)
        self._inspect = jax.jit(self._pure_inspect)
        self.state: State = self._trainer.state()
        self.gradients: Mapping[str, Any] = {}
        self.changed: list[str] = []

    def step(self, xs: Any, ys: Any) -> Any:
        """Takes a training step and returns its loss."""
        with self._x64():
            self._leaves, *results = self._step(self._leaves, (xs, ys))
        loss, self.gradients, arrays = jax.device_get(results)
        self.state = State.from_flat(arrays).numpy()
        return loss

    def predict(self, xs: Any) -> dict[str, Any]:
        """Predicts, and records which arrays the prediction changed."""
        with self._x64():
            predictions, before, after = jax.device_get(
                self._inspect(self._leaves, xs)
            )
        errors = agreement.relative_errors(before, after)
        self.changed = [name for name, error in errors.items() if error]
        leaves, _ = jax.tree_util.tree_flatten_with_path(predictions)
        return {
            f"predictions{jax.tree_util.keystr(path)}": x for path, x in leaves
        }

    def _pure_step(self, leaves: Any, batch: Any) -> Any:
        pure = self._trainer.pure
        leaves, metrics, gradients = pure.step_with_gradients(leaves, batch)
        gradients = zero_round_off(gradients, self._trainer.spec.zero_gradient)
        return leaves, metrics["loss"], gradients, pure.state(leaves)

    def _pure_inspect(self, leaves: Any, xs: Any) -> Any:
        backend = self._trainer.backend
        native = self._trainer.pure.rebuild(leaves)
        before = backend.state(native).flat()
        predictions = backend.predict(native, jax.tree.map(jnp.asarray, xs))
        return predictions, before, backend.state(native).flat()

    def _x64(self):
        return jax.enable_x64(self._trainer.dtype == "float64")


def _require_one_model(trainer: Trainer) -> None:
    members = trainer.settings.ensemble
    if members is not None:
        raise ValueError(
            f"compare: got an ensemble of {members}, expected trainers of one "
            "model. Compare members, as in `compare(left.member(0), "
            "right.member(0), xs, ys)`."
        )


def _settings() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Captures the caller's JAX settings, which threads do not inherit."""
    x64 = flag("jax_enable_x64")
    device = flag("jax_default_device")

    @contextlib.contextmanager
    def restored():
        # A device's fast matrix products would hide other divergences.
        with (
            jax.default_matmul_precision("highest"),
            jax.default_device(device),
            jax.enable_x64(x64),
        ):
            yield

    return restored


def _call_with(settings: Any, function: Callable[[Any], Any], x: Any) -> Any:
    with settings():
        return function(x)


def _require_same(left: Trainer, right: Trainer) -> None:
    for what, a, b in (
        # Settings of the spec that change the program only may differ.
        ("spec", left.spec.same_model(), right.spec.same_model()),
        ("dtype", left.dtype, right.dtype),
        (
            "compute_dtype",
            left.settings.compute_dtype,
            right.settings.compute_dtype,
        ),
    ):
        if a != b:
            raise ValueError(
                f"compare, {what} of the right trainer: got {b!r}, expected "
                f"{a!r} as on the left. Build both trainers with the same "
                "spec, hyper-parameters and dtypes."
            )
