"""Trains two models side by side in one dtype, and judges every quantity."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from common.agreement import EPS
from common.comparison import halves
from common.comparison.halves import Arrays, Half
from common.comparison.judge import Judge
from common.comparison.mapping import Mapping
from common.comparison.programs import Program, Run, compile_all, nudge
from common.comparison.rows import Place, Row
from common.porting.arrays import on_host
from common.state import State

NUDGED = "nudged"
Values = tuple[Arrays, Arrays]


@dataclasses.dataclass(frozen=True)
class Failure:
    """The first mismatch, and what leads to it.

    Attributes:
        row: the row that failed.
        place: the array, the step and the error.
        values: the arrays of the left and the right that were compared.
        previous: the same arrays before the step, where there are any.
        trained: the left's trained arrays before it.
        rest: the other arrays of each side before it.
    """

    row: Row
    place: Place
    values: Values
    previous: Values | None
    trained: Arrays
    rest: tuple[Arrays, Arrays]


@dataclasses.dataclass
class Duel:
    """Two models that are trained side by side.

    Attributes:
        programs: what is compiled of the left and the right.
        mapping: between their arrays.
        dtype: the dtype that the rows show.
        precision: the dtype whose tolerances apply.
        steps: the number of training steps.
        pooled: see `Judge`.
        rows: the results.
        losses: the loss of every step, by the label of a side.
        failure: the first mismatch, if any.
        kept_buffers: whether no training step changed any buffer.
    """

    programs: tuple[Program, Program]
    mapping: Mapping
    dtype: str
    precision: str
    steps: int
    pooled: bool = False
    rows: list[Row] = dataclasses.field(default_factory=list)
    losses: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failure: Failure | None = None
    kept_buffers: bool = True

    @property
    def halves(self) -> tuple[Half, Half]:
        """The left and the right model."""
        return self.programs[0].half, self.programs[1].half

    @property
    def training(self) -> bool:
        """Whether training steps call the models in training mode."""
        return self.programs[0].training

    def run(self, tick: Callable[[], None]) -> None:
        """Trains both, and judges them.

        Args:
            tick: a function to call after every step.
        """
        compile_all(self.programs)
        left, right = self.halves
        self._names = (left.label, right.label, NUDGED)
        self._judge = Judge(
            self.precision,
            [(left.label, right.label)],
            label=self.dtype,
            nudged=NUDGED,
            pooled=self.pooled,
        )
        started = left.trained
        nudged = nudge(started, EPS[self.precision])
        starts = (started, started, nudged)
        both = (*self.programs, self.programs[0])
        self._runs = [Run(p, x) for p, x in zip(both, starts, strict=True)]
        self._latest: dict[str, Values] = {}
        self._previous: dict[str, Values] = {}
        self.losses = {half.label: [] for half in self.halves}
        with jax.default_matmul_precision("highest"):
            self._predict("forward", 0)
            for step in range(1, self.steps + 1):
                self._step(step)
                tick()
            changed = self._predict("eval", self.steps)
        self._judge.overwritten(self.steps, changed)
        self._latest["overwritten"] = ({}, {})
        self._note_failure(self._before())
        self.rows = self._judge.rows()

    def _predict(self, quantity: str, step: int) -> dict[str, list[str]]:
        found = [run.infer() for run in self._runs]
        if quantity not in self.mapping.left_out:
            self._values(quantity, step, [outputs for outputs, _ in found])
            self._note_failure(self._before())
        names = zip(self._names[:2], found[:2], strict=True)
        return {name: changed for name, (_, changed) in names}

    def _step(self, step: int) -> None:
        before = self._before()
        if step == 1:
            self._previous = self._compared(self._states(0))
        results = [run.step() for run in self._runs]
        losses = [loss for loss, _ in results]
        if step == 1:
            if self.training:
                outputs = [outputs for _, outputs in results]
                self._values("training", 1, outputs)
            gradients = [self._labeled(run.gradients) for run in self._runs]
            self._values("gradients", 1, gradients)
        by_name = dict(zip(self._names, losses, strict=True))
        self._judge.losses(step, by_name)
        pair = ({"": losses[0]}, {"": losses[1]})
        self._latest |= {"loss": pair, "trajectory": pair}
        for name, loss in zip(self._names[:2], losses[:2], strict=True):
            self.losses[name].append(float(loss))
        states = self._states(step)
        self._latest |= self._compared(states)
        if step == 1:
            self._judge.first_step(states)
            old, new = self._previous["buffers"], self._latest["buffers"]
            self.kept_buffers = _is_same(old[0], new[0]) and _is_same(
                old[1], new[1]
            )
        self._judge.state(step, states)
        self._note_failure(before)
        self._previous = self._compared(states)

    def _compared(self, states: dict[str, State]) -> dict[str, Values]:
        """Returns the arrays of both sides by quantity."""
        a, b = (states[name] for name in self._names[:2])
        return {
            "buffers": (dict(a.buffers), dict(b.buffers)),
            "update": ({**a.params, **a.opt}, {**b.params, **b.opt}),
            "parameters": (
                {**a.params, **a.buffers},
                {**b.params, **b.buffers},
            ),
            "moments": (dict(a.opt), dict(b.opt)),
        }

    def _states(self, step: int) -> dict[str, State]:
        left, right = self.halves
        names = halves.comparable_rest(self.mapping, left, right)
        if not self.training:
            names = []
        states = {}
        for name, run in zip(self._names, self._runs, strict=True):
            if run.program is self.programs[0]:
                layouts, rest = self.mapping.layouts, on_host(run.rest)
                buffers = {n: layouts[n].apply(rest) for n in names}
            else:
                buffers = {n: run.rest[n] for n in names}
            label = self.mapping.label_right
            states[name] = State(
                params=self._labeled(halves.host(run.trained)),
                buffers={label(n): x for n, x in halves.host(buffers).items()},
                opt=run.optimizer_state(),
                rng={},
                step=step,
            )
        return states

    def _labeled(self, arrays: Arrays) -> Arrays:
        return {self.mapping.label_left(n): x for n, x in arrays.items()}

    def _values(self, quantity: str, step: int, values: list[Arrays]) -> None:
        self._latest[quantity] = (values[0], values[1])
        by_name = dict(zip(self._names, values, strict=True))
        self._judge.values(quantity, step, by_name)

    def _before(self) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        left, right, _ = self._runs
        return left.trained, (left.rest, right.rest)

    def _note_failure(self, before: Any) -> None:
        if self.failure is not None:
            return
        found = [
            (row, row.first)
            for row in self._judge.rows()
            if row.first is not None
        ]
        if not found:
            return
        # The rows are in the order of proof, and `min` returns the first.
        row, place = min(found, key=_step)
        self.failure = Failure(
            row,
            place,
            self._latest[row.quantity],
            self._previous.get(row.quantity),
            *before,
        )


def _step(found: tuple[Row, Place]) -> int:
    return found[1].step


def _is_same(before: Arrays, after: Arrays) -> bool:
    return all((after[name] == x).all() for name, x in before.items())
