"""Trains backends in lockstep and holds them against each other."""

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
from common.comparison.report import Report
from common.environment import flag
from common.state import State
from common.training import checks
from common.training.optimizers import OPTIMIZER
from common.training.trainer import Trainer

# A gradient below so many ULPs of the largest one is round-off.
QUIET = 64


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
    states that they are in, with matmuls in full precision. The trainers
    themselves are left alone.

    Args:
        left: a trainer.
        right: a trainer of the same model, of any backend.
        xs: a batch of inputs.
        ys: as many targets.
        steps: training steps to take, at least 1.

    Returns:
        A row for each quantity, in the order of proof.

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

    Returns:
        A row for each quantity and pair.

    Raises:
        ValueError: if the trainers do not train the same model in one dtype.
        BatchError: if the batch does not fit, before anything compiles.
    """
    checks.check_steps(steps)
    first = next(iter(trainers.values()))
    for trainer in trainers.values():
        _require_same(first, trainer)
        trainer.check(xs, ys, training=True)
    judge = Judge(first.dtype, pairs)
    settings = _settings()

    # In threads, because compiling is most of the work and leaves the
    # interpreter free.
    with concurrent.futures.ThreadPoolExecutor(len(trainers)) as pool:

        def each(read: Callable[[Any], Any], of: Any = None) -> dict[str, Any]:
            of = runs if of is None else of
            call = functools.partial(_under, settings, read)
            return dict(zip(of, pool.map(call, of.values()), strict=True))

        runs: dict[str, _Run] = each(_Run, trainers)
        before = each(lambda run: run.state)
        judge.handed_over(before, each(lambda it: it.state(), trainers))
        judge.values("forward", 0, each(lambda run: run.predict(xs)))

        losses: dict[str, list[float]] = {name: [] for name in runs}
        for step in range(1, steps + 1):
            found = each(lambda run: run.step(xs, ys))
            judge.losses(step, found)
            for name, loss in found.items():
                losses[name].append(float(loss))
            states = each(lambda run: run.state)
            if step == 1:
                gradients = each(lambda run: run.gradients)
                judge.values("gradients", 1, gradients)
                judge.first_step(before, states)
            judge.state(step, states)
            tick()

        judge.values("eval", steps, each(lambda run: run.predict(xs)))
        judge.kept(steps, each(lambda run: run.changed))

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


def recording(
    optimizer: optax.GradientTransformation, quiet: Collection[str]
) -> optax.GradientTransformation:
    """Chains an optimizer behind one that keeps the last gradients.

    So the gradients cross between backends like any moment, and come from
    the very step that is compared.

    Args:
        optimizer: sees the gradients next.
        quiet: parameters with elements whose true gradient is zero
            (`Spec.zero_gradient`). Their round-off is taken off: Adam would
            make a full-sized step of it, in another direction in each
            backend.
    """

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates, state, params=None):
        del state, params
        largest = jnp.max(
            jnp.array([jnp.max(jnp.abs(g)) for g in updates.values()])
        )

        def hush(g):
            floor = QUIET * jnp.finfo(g.dtype).eps * largest
            return jnp.where(jnp.abs(g) < floor, jnp.zeros_like(g), g)

        updates = {
            name: hush(g) if name in quiet else g
            for name, g in updates.items()
        }
        return updates, updates

    recorder = optax.GradientTransformation(init, update)
    return optax.chain(recorder, optimizer)


class _Run:
    """A copy of a trainer whose optimizer records the gradients.

    Attributes:
        state: as it is, without the record.
        gradients: of the last step.
        changed: names of the arrays that the last prediction changed.
    """

    _recorded = f"{OPTIMIZER}.0."
    _own = f"{OPTIMIZER}.1."

    def __init__(self, trainer: Trainer):
        optimizer = recording(trainer.optimizer, trainer.spec.zero_gradient)
        self._trainer = trainer.with_optimizer(optimizer)
        self._inspect = jax.jit(self._pure_inspect)
        state, blank = trainer.state(), self._trainer.state()
        opt = {
            name: state.opt[f"{OPTIMIZER}.{name.removeprefix(self._own)}"]
            if name.startswith(self._own)
            else x
            for name, x in blank.opt.items()
        }
        self._trainer.load(dataclasses.replace(state, opt=opt))
        self.changed: list[str] = []
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

    def predict(self, xs: Any) -> dict[str, Any]:
        """Predicts with the native object, and looks at it afterwards."""
        with jax.enable_x64(self._trainer.dtype == "float64"):
            predictions, before, after = jax.device_get(
                self._inspect(self._trainer.leaves, xs)
            )
        apart = agreement.relative_errors(before, after)
        self.changed = [name for name, off in apart.items() if off]
        leaves, _ = jax.tree_util.tree_flatten_with_path(predictions)
        return {
            f"predictions{jax.tree_util.keystr(path)}": x for path, x in leaves
        }

    def _pure_inspect(self, leaves: Any, xs: Any) -> Any:
        backend = self._trainer.backend
        native = self._trainer.rebuild(leaves)
        before = backend.state(native).flat()
        predictions = backend.predict(native, jax.tree.map(jnp.asarray, xs))
        return predictions, before, backend.state(native).flat()


def _settings() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Captures what a thread does not inherit of the caller's settings."""
    x64 = flag("jax_enable_x64")
    device = flag("jax_default_device")

    @contextlib.contextmanager
    def restored():
        # A comparison is not the place for a device's fast matmuls.
        with (
            jax.default_matmul_precision("highest"),
            jax.default_device(device),
            jax.enable_x64(x64),
        ):
            yield

    return restored


def _under(settings: Any, read: Callable[[Any], Any], run: Any) -> Any:
    with settings():
        return read(run)


def _require_same(left: Trainer, right: Trainer) -> None:
    for what in ("spec", "dtype"):
        a, b = getattr(left, what), getattr(right, what)
        if a != b:
            raise ValueError(
                f"compare, {what} of the right trainer: got {b!r}, expected "
                f"{a!r} as on the left. Build both alike."
            )
