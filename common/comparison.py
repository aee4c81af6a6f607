"""Trains backends in lockstep and holds them against each other."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from common import agreement, checks
from common.optimizers import OPTIMIZER
from common.protocol import Spec
from common.report import QUANTITIES, Place, Report, Row
from common.state import State
from common.trainer import Trainer

Arrays = Mapping[str, Any]


def compare(
    left: Trainer,
    right: Trainer,
    xs: Any,
    ys: Any,
    *,
    steps: int = 100,
) -> Report:
    """Trains two trainers side by side and reports where they differ.

    Copies of both take `steps` jitted steps on the batch `(xs, ys)`, from the
    states that they are in. The trainers themselves are left alone.

    Args:
        left: a trainer.
        right: a trainer of the same model, of any backend.
        xs: a batch of inputs.
        ys: as many targets.
        steps: training steps to take, at least 1.

    Raises:
        ValueError: if the two do not train the same model in one dtype.
        BatchError: if the batch does not fit, before anything compiles.
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
    """Trains some trainers in lockstep and compares the given pairs.

    Args:
        trainers: by the name they have in the report.
        pairs: names of the left and the right trainer of each comparison.
        xs: a batch of inputs.
        ys: as many targets.
        steps: training steps to take, at least 1.
        tick: called after every step.

    Raises:
        ValueError: if the trainers do not train the same model in one dtype.
        BatchError: if the batch does not fit, before anything compiles.
    """
    first = next(iter(trainers.values()))
    for trainer in trainers.values():
        _require_same(first, trainer)
        trainer.check(xs, ys, training=True)
    checks.check_steps(steps)
    judge = _Judge(first.spec, first.dtype, pairs)

    x64 = checks.flag("jax_enable_x64")
    # In threads, because compiling is most of the work and leaves the
    # interpreter free.
    with concurrent.futures.ThreadPoolExecutor(len(trainers)) as pool:

        def each(read: Callable[[Any], Any], of: Any = None) -> dict[str, Any]:
            of = runs if of is None else of
            results = pool.map(
                functools.partial(_precisely, read, x64), of.values()
            )
            return dict(zip(of, results, strict=True))

        runs: dict[str, _Run] = each(_Run, trainers)
        before = each(lambda run: run.state)
        judge.handed_over(before, each(lambda it: it.state(), trainers))
        judge.values("forward", 0, each(lambda run: run.predict(xs)))

        losses: dict[str, list[float]] = {name: [] for name in runs}
        for step in range(1, steps + 1):
            for name, loss in each(lambda run: run.step(xs, ys)).items():
                losses[name].append(float(loss))
            current = {name: {"": losses[name][-1]} for name in runs}
            if step == 1:
                judge.values("loss", 1, current)
                judge.first_step(before, each(lambda run: run.state))
                judge.gradients(each(lambda run: run.gradients))
            judge.values("trajectory", step, current)
            judge.state(step, each(lambda run: run.state))
            tick()

        end = each(lambda run: run.state)
        judge.values("eval", steps, each(lambda run: run.predict(xs)))
        judge.kept(steps, end, each(lambda run: run.state))

    return Report(
        spec=first.spec.name,
        hyper_parameters=dataclasses.asdict(first.spec),
        dtype=first.dtype,
        steps=steps,
        seed=first.seed,
        pairs=list(pairs),
        rows=judge.rows(),
        losses=losses,
    )


def _precisely(read: Callable[[Any], Any], x64: bool, run: Any) -> Any:
    # A comparison is not the place for a device's fast matmuls. A thread has
    # its own settings, so the caller's are handed on.
    with jax.default_matmul_precision("highest"), jax.enable_x64(x64):
        return read(run)


def recording(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Chains an optimizer behind one that keeps the last gradients.

    So the gradients cross between backends like any moment, and come from
    the very step that is compared.
    """

    def init(params):
        return jax.tree.map(jax.numpy.zeros_like, params)

    def update(updates, state, params=None):
        del state, params
        return updates, updates

    recorder = optax.GradientTransformation(init, update)
    return optax.chain(recorder, optimizer)


class _Run:
    """A copy of a trainer whose optimizer records the gradients."""

    _recorded = f"{OPTIMIZER}.0."
    _own = f"{OPTIMIZER}.1."

    def __init__(self, trainer: Trainer):
        self._trainer = trainer.with_optimizer(recording(trainer.optimizer))
        state, blank = trainer.state(), self._trainer.state()
        opt = {
            name: state.opt[f"{OPTIMIZER}.{name.removeprefix(self._own)}"]
            if name.startswith(self._own)
            else x
            for name, x in blank.opt.items()
        }
        self._trainer.load(dataclasses.replace(state, opt=opt))
        self._read()

    def _read(self) -> None:
        state = self._trainer.state()
        self.gradients = {
            name.removeprefix(self._recorded): x
            for name, x in state.opt.items()
            if name.startswith(self._recorded)
        }
        opt = {
            f"{OPTIMIZER}.{name.removeprefix(self._own)}": x
            for name, x in state.opt.items()
            if name.startswith(self._own)
        }
        self.state: State = dataclasses.replace(state, opt=opt)

    def step(self, xs: Any, ys: Any) -> Any:
        loss = self._trainer.step(xs, ys)["loss"]
        self._read()
        return np.asarray(loss)

    def predict(self, xs: Any) -> Arrays:
        predictions = self._trainer.predict(xs)
        self._read()
        leaves, _ = jax.tree_util.tree_flatten_with_path(predictions)
        return {
            f"predictions{jax.tree_util.keystr(path)}": np.asarray(x)
            for path, x in leaves
        }


class _Judge:
    """Collects the worst and the first excessive difference of each row."""

    def __init__(self, spec: Spec, dtype: str, pairs: Any):
        self._spec = spec
        self._dtype = dtype
        self._pairs = [tuple(pair) for pair in pairs]
        self._rows: dict[tuple[str, str, str], Row] = {}
        zero = spec.zero_gradient
        self._peaks: dict[str, float] = {}
        self._noise = {*zero, *(b for bs in zero.values() for b in bs)}

    def rows(self) -> list[Row]:
        """Returns the rows in the order of proof, then by pair."""
        return [
            self._rows[quantity, left, right]
            for quantity in QUANTITIES
            for left, right in self._pairs
            if (quantity, left, right) in self._rows
        ]

    def values(
        self, quantity: str, step: int, arrays: Mapping[str, Arrays]
    ) -> None:
        """Judges arrays by name, each in its own magnitude."""
        for left, right in self._pairs:
            apart = agreement.differences(
                _numpy(arrays[left]), _numpy(arrays[right])
            )
            self._add(quantity, left, right, step, apart)

    def handed_over(
        self, copies: Mapping[str, State], originals: Mapping[str, State]
    ) -> None:
        """Judges that both began alike, and that copying lost nothing."""
        for left, right in self._pairs:
            apart = agreement.differences(
                originals[left].flat(), originals[right].flat()
            )
            for name in (left, right):
                lost = agreement.differences(
                    copies[name].flat(), originals[name].flat()
                )
                apart |= {k: v for k, v in lost.items() if v > apart[k]}
            self._add("state", left, right, 0, apart)

    def first_step(
        self, before: Mapping[str, State], after: Mapping[str, State]
    ) -> None:
        """Judges what one step made of buffers, parameters and moments."""
        for left, right in self._pairs:
            a, b = after[left], after[right]
            self._group("buffers", left, right, 1, a.buffers, b.buffers)
            for x, y in ((a.params, b.params), (a.opt, b.opt)):
                self._group("update", left, right, 1, x, y)
            moved = {
                name: {
                    leaf
                    for leaf, x in after[name].buffers.items()
                    if not np.array_equal(x, before[name].buffers[leaf])
                }
                for name in (left, right)
            }
            stale = {
                f"{name}.{leaf}": 1.0
                for name, other in ((left, right), (right, left))
                for leaf in moved[other] - moved[name]
            }
            self._count("trained", left, right, 1, stale)

    def gradients(self, gradients: Mapping[str, Arrays]) -> None:
        """Judges the gradients of the first step."""
        for left, right in self._pairs:
            self._group(
                "gradients",
                left,
                right,
                1,
                gradients[left],
                gradients[right],
            )

    def state(self, step: int, states: Mapping[str, State]) -> None:
        """Judges a whole State along the way."""
        for left, right in self._pairs:
            a, b = states[left], states[right]
            self._group("parameters", left, right, step, a.params, b.params)
            self._group("parameters", left, right, step, a.buffers, b.buffers)
            self._group(
                "moments", left, right, step, a.opt, b.opt, self._peaks
            )

    def kept(
        self,
        step: int,
        before: Mapping[str, State],
        after: Mapping[str, State],
    ) -> None:
        """Judges that inference changed nothing at all."""
        for left, right in self._pairs:
            changed = {
                f"{name}.{leaf}": v
                for name in (left, right)
                for leaf, v in agreement.differences(
                    before[name].flat(), after[name].flat()
                ).items()
            }
            self._count("kept", left, right, step, changed)

    def _count(
        self,
        quantity: str,
        left: str,
        right: str,
        step: int,
        wrong: Mapping[str, float],
    ) -> None:
        """Judges that no array at all is wrong."""
        leaves = [leaf for leaf, value in wrong.items() if value]
        place = Place(step, min(leaves, default=""), float(len(leaves)))
        first = place if leaves else None
        self._rows[quantity, left, right] = Row(
            quantity, left, right, place, 0.0, first
        )

    def _group(
        self,
        quantity: str,
        left: str,
        right: str,
        step: int,
        a: Arrays,
        b: Arrays,
        peaks: dict[str, float] | None = None,
    ) -> None:
        """Judges arrays of one kind; those without a gradient apart.

        Args:
            peaks: the largest magnitudes so far, brought up to date here, to
                measure in instead of those of the moment. A gradient falls
                as training succeeds, its rounding does not.
        """
        scales: dict[str, float] = {}
        if peaks is not None:
            for name in a.keys() & b.keys():
                now = max(map(agreement.magnitude, (a[name], b[name])))
                peaks[name] = max(now, peaks.get(name, 0.0))
            scales = peaks
        apart = agreement.differences(a, b, scales)
        noise = {name for name in apart if self._is_noise(name)}
        self._add(
            quantity,
            left,
            right,
            step,
            {name: v for name, v in apart.items() if name not in noise},
        )
        if noise:
            scale = max(
                agreement.magnitude(x)
                for arrays in (a, b)
                for x in arrays.values()
                if np.issubdtype(x.dtype, np.floating)
            )
            scales = dict.fromkeys(noise, scale)
            apart = agreement.differences(a, b, scales)
            self._add("noise", left, right, step, {n: apart[n] for n in noise})

    def _is_noise(self, name: str) -> bool:
        return any(name == n or name.endswith(f".{n}") for n in self._noise)

    def _add(
        self,
        quantity: str,
        left: str,
        right: str,
        step: int,
        apart: Mapping[str, float],
    ) -> None:
        if not apart:
            return
        leaf = max(apart, key=lambda name: apart[name])
        place = Place(step, leaf, apart[leaf])
        bound = agreement.tolerance(
            self._dtype,
            quantity,
            step,
            spread=quantity in self._spec.noise_reaches,
        )
        key = (quantity, left, right)
        old = self._rows.get(key)
        first = old.first if old else None
        if first is None and not place.difference <= bound:
            first = place
        worst = place
        if old and old.worst.difference / (old.tolerance or 1) > (
            place.difference / (bound or 1)
        ):
            worst, bound = old.worst, old.tolerance
        self._rows[key] = Row(quantity, left, right, worst, bound, first)


def _numpy(arrays: Arrays) -> Arrays:
    return {name: np.asarray(x) for name, x in arrays.items()}


def _require_same(left: Trainer, right: Trainer) -> None:
    for what in ("spec", "dtype"):
        a, b = getattr(left, what), getattr(right, what)
        if a != b:
            raise ValueError(
                f"compare, {what} of the right trainer: got {b!r}, expected "
                f"{a!r} as on the left. Build both alike."
            )
