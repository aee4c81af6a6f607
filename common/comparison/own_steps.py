"""`compare` for two trainers of which at least one brings its own step."""

import dataclasses
from typing import Any

import jax
import numpy as np

from common.agreement import EPS
from common.comparison.judge import Judge
from common.comparison.programs import nudge
from common.comparison.report import Report
from common.errors import BatchError
from common.state import State
from common.training import carrying, checks
from common.training.trainer import Trainer

NUDGED = "nudged"
NAMED = "predictions"


def brings_step(trainer: Trainer) -> bool:
    """Tells whether a trainer's model has a training step of its own."""
    return getattr(trainer.backend, "user_step", None) is not None


def compare_each_step(
    left: Trainer,
    right: Trainer,
    inputs: tuple[Any, Any],
    ys: Any,
    *,
    rules: Any = None,
    steps: int,
    carry: bool = False,
) -> Report:
    """Trains two trainers side by side, each with its own step.

    Copies of both start from the State of the left trainer, carried to the
    right one. After each step, the State of the left is carried again, and
    compared with that of the right.

    Args:
        left: a trainer of a model of the user.
        right: another one.
        inputs: the batch of inputs of each trainer.
        ys: the targets, or `None`.
        rules: the mapping between their arrays, as for `port`.
        steps: the number of training steps.
        carry: whether the right's own arrays may differ from the left's.

    Raises:
        ValueError: if the trainers differ in their dtype, or if their arrays
            do not correspond.
        StateError: if their optimizers, or what the steps carry, do not
            correspond.
    """
    checks.check_steps(steps)
    dtype = _require_dtype(left, right)
    labels = _labels(left, right)
    judge = Judge(dtype, [labels], nudged=NUDGED, pooled=dtype != "float64")
    like, own = left.native, right.state()

    def carried(state: State) -> State:
        with jax.enable_x64(dtype == "float64"):
            return carrying.carry(state, rules, right.subject, own, like)

    started = left.state()
    at_start = carried(started)
    if not carry:
        arrays = {
            name: _arrays_of(state)
            for name, state in zip(labels, (at_start, own), strict=True)
        }
        judge.handed_over(arrays, arrays)
    with jax.enable_x64(dtype == "float64"):
        params = nudge(dict(started.params), EPS[dtype])
    nudged = dataclasses.replace(started, params=params)
    ours = _Run(left, started)
    runs = {
        labels[0]: ours,
        labels[1]: _Run(right, at_start),
        NUDGED: _Run(left, nudged, ours),
    }
    xs = dict(zip(runs, (*inputs, inputs[0]), strict=True))
    predicts = _takes(left, inputs[0]) and _takes(right, inputs[1])
    losses: dict[str, list[float]] = {name: [] for name in labels}
    with jax.default_matmul_precision("highest"):
        if predicts:
            found = {n: run.predict(xs[n]) for n, run in runs.items()}
            judge.values("forward", 0, found)
        for step in range(1, steps + 1):
            taken = {n: run.step(xs[n], ys) for n, run in runs.items()}
            states = {
                n: x if n == labels[1] else carried(x)
                for n, (_, x) in taken.items()
            }
            by_name = {name: loss for name, (loss, _) in taken.items()}
            judge.losses(step, by_name)
            for name in labels:
                losses[name].append(float(by_name[name]))
            if step == 1:
                judge.first_step(states)
            judge.state(step, states)
        if predicts:
            found = {n: run.predict(xs[n]) for n, run in runs.items()}
            judge.values("eval", steps, found)
    notes = [
        "each trainer takes its own step, from the State of the left",
        "left out: outputs in training mode, gradients, and the source lines",
    ]
    if not predicts:
        notes.append(
            "left out: outputs in inference mode, in which the models do not "
            "take the batch of a training step"
        )
    return Report(
        spec=None,
        hyper_parameters={},
        dtype=dtype,
        steps=steps,
        seed=left.seed,
        pairs=[labels],
        rows=judge.rows(),
        losses=losses,
        models=(left.name, right.name),
        notes=notes,
    )


class _Run:
    """A copy of a trainer that is trained step by step."""

    def __init__(
        self, trainer: Trainer, state: State, same: "_Run | None" = None
    ):
        """Makes a copy.

        Args:
            trainer: what to copy.
            state: to start from.
            same: a run of the same trainer, whose programs serve this one.
        """
        copy = trainer.with_optimizer(trainer.optimizer).load(state)
        self._trainer = copy if same is None else same._trainer
        self._place = {k: copy.state().rng[k] for k in ("epoch", "position")}
        self._leaves = copy.leaves
        pure = self._trainer.pure
        self._step = same._step if same else jax.jit(pure.step)
        self._predict = same._predict if same else jax.jit(pure.predict)
        self._state = same._state if same else jax.jit(pure.state)

    def step(self, xs: Any, ys: Any) -> tuple[Any, State]:
        """Takes a step, and returns its loss and the State after it."""
        with self._x64():
            self._leaves, metrics = self._step(self._leaves, (xs, ys))
            state = State.from_flat(self._state(self._leaves))
        rng = {**state.rng, **self._place}
        state = dataclasses.replace(state, rng=rng).numpy()
        return np.asarray(metrics["loss"]), state

    def predict(self, xs: Any) -> dict[str, Any]:
        """Returns the outputs in inference mode, by path."""
        with self._x64():
            outputs = self._predict(self._leaves, xs)
        return {f"{NAMED}[{i}]": x for i, x in enumerate(_leaves(outputs))}

    def _x64(self):
        return jax.enable_x64(self._trainer.dtype == "float64")


def _takes(trainer: Trainer, xs: Any) -> bool:
    """Tells whether a model can be called on a batch in inference mode."""
    try:
        trainer.check(xs)
    except BatchError:
        return False
    return True


def _leaves(outputs: Any) -> list[Any]:
    return [np.asarray(x) for x in jax.tree.leaves(outputs)]


def _arrays_of(state: State) -> State:
    """Returns the arrays of the model alone."""
    return dataclasses.replace(state, opt={}, rng={}, step=np.int32(0))


def _labels(left: Trainer, right: Trainer) -> tuple[str, str]:
    a, b = left.backend.name, right.backend.name
    return (a, b) if a != b else (f"{a} (left)", f"{b} (right)")


def _require_dtype(left: Trainer, right: Trainer) -> str:
    if left.dtype != right.dtype:
        raise ValueError(
            f"compare, dtype of the right trainer: got {right.dtype}, "
            f"expected {left.dtype} as on the left. Pass `dtype` to `build`."
        )
    return left.dtype
