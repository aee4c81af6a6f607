"""What training costs in each library, beside hand-written JAX.

Every contender is first made to agree with the floor: one that computes
something else is never timed. Then all take turns in short bursts, in a new
order each round, so that a slow second of the machine hits all of them.
"""

import contextlib
import datetime
import gc
import importlib
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import rich.console
import rich.progress
from jax import lax

from common import data as data_module
from common import losses
from common.bench_report import Benchmark, Program, Race, Timing
from common.protocol import Spec
from common.registry import build, find_spec
from common.specs.deep_mlp import DeepMLP
from common.trainer import VERSIONED, Trainer

DTYPE = "float32"
LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
FLOOR = "plain JAX"
LOOP, SCAN = "plain JAX, Python loop", "plain JAX, lax.scan"

BATCH_SIZE = 32
CHECK_STEPS = 5
BURST_SECONDS = 0.01
MAX_BURST = 50
SEED = 0
SLOW_SCAN_STEPS = 4

DEPTHS = (2, 20, 100)
ROUNDS = 60
# Epochs of each model's `fit`: as many as train for some 50 ms or more.
FITS = {"stateful_mlp": 64, "digits_cnn": 1}
FIT_ROUNDS = 20

COMMAND = "python -m common bench"

Tick = Callable[[str], None]


class UnverifiedContenderError(ValueError):
    """A contender that does not compute what the floor computes."""


class Contender(NamedTuple):
    """Something to time.

    Attributes:
        name: what tables call it.
        call: trains on; returns the losses, not waited for.
        steps: training steps in one call.
    """

    name: str
    call: Callable[[], Any]
    steps: int = 1


def run(
    *,
    depths: Sequence[int] | None = None,
    fits: dict[str, int] | None = None,
    rounds: int | None = None,
    quick: bool = False,
    progress: bool = True,
    command: str = COMMAND,
) -> Benchmark:
    """Measures one training step, and `fit`, against hand-written JAX.

    Args:
        depths: blocks of the models whose single step is timed.
        fits: epochs of `fit` by spec name.
        rounds: samples of each contender; a third of them for `fit`.
        quick: a smoke test: the smallest model and a few samples.
        progress: shows a progress bar on a terminal.
        command: is kept in the result, as the way to run it again.

    Raises:
        UnverifiedContenderError: if a contender's losses are not the
            floor's. Nothing of its race has been timed then.
    """
    if depths is None:
        depths = DEPTHS[:1] if quick else DEPTHS
    if fits is None:
        fits = {"stateful_mlp": 2} if quick else FITS
    if rounds is None:
        rounds = 3 if quick else ROUNDS
    fit_rounds = max(2, rounds * FIT_ROUNDS // ROUNDS)
    total = len(depths) * rounds + len(fits) * fit_rounds
    # The models' own precision and JAX's defaults, whatever the caller set.
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        _ticks(total, progress) as tick,
    ):
        jax.block_until_ready(jnp.zeros(()) + 1)  # start the runtime
        races = [step_race(depth, rounds, tick) for depth in depths]
        races += [
            fit_race(name, epochs, fit_rounds, tick)
            for name, epochs in fits.items()
        ]
    device = jax.devices()[0]
    return Benchmark(
        races=tuple(races),
        versions={"python": platform.python_version()}
        | {name: metadata.version(name) for name in VERSIONED},
        device=f"{device.device_kind} ({device.platform})",
        cpu_count=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings={
            "dtype": DTYPE,
            "depths": list(depths),
            "fits": dict(fits),
            "rounds": rounds,
            "fit_rounds": fit_rounds,
            "batch_size": BATCH_SIZE,
            "check_steps": CHECK_STEPS,
            "burst_seconds": BURST_SECONDS,
            "max_burst": MAX_BURST,
            "seed": SEED,
            "compile_cache": jax.config.jax_compilation_cache_dir,
            "xla_flags": os.environ.get("XLA_FLAGS"),
        },
        command=command,
    )


# --- the floor: plain JAX, as one writes it by hand -------------------------


def plain_step(spec: Spec, native: Any) -> tuple[list[Any], Callable]:
    """Writes one training step over a flat list of arrays.

    Args:
        spec: says what the model means.
        native: initial values, of the reference backend.

    Returns:
        The list, and `(leaves, xs, ys, key) -> (leaves, loss)`.
    """
    optimizer = spec.optimizer()
    loss_function = losses.find_loss(spec.loss)
    leaves, treedef = jax.tree.flatten(
        (native.params, native.buffers, native.opt_state)
    )

    def step(leaves, xs, ys, key=None):
        params, buffers, opt_state = jax.tree.unflatten(treedef, leaves)

        def compute_loss(params):
            predictions, new_buffers = spec.forward(
                params, buffers, xs, key=key, training=True
            )
            return loss_function(predictions, ys), new_buffers

        (loss, buffers), grads = jax.value_and_grad(
            compute_loss, has_aux=True
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return jax.tree.leaves((params, buffers, opt_state)), loss

    return leaves, step


def _plain_contender(spec: Spec, xs, ys) -> tuple[Contender, Any]:
    leaves, step = plain_step(spec, _native("reference", spec))
    step = jax.jit(step, donate_argnums=0)
    lowered = step.lower(leaves, xs, ys)

    def call():
        nonlocal leaves
        leaves, loss = step(leaves, xs, ys)
        return loss

    return Contender(FLOOR, call), lowered


class PlainFit:
    """A hand-written `fit` in the trainer's data order.

    All steps are one `lax.scan`, or one dispatch each.
    """

    def __init__(self, spec: Spec, data: Any, *, epochs: int, scan: bool):
        native = _native("reference", spec)
        self._key_data = np.asarray(jr.key_data(native.key))
        self._data = data
        self._epochs = epochs
        self._epoch = self._steps = 0
        self._leaves, step = plain_step(spec, native)

        def step_at(leaves, data, row, number):
            xs, ys = jax.tree.map(lambda x: jnp.take(x, row, axis=0), data)
            return step(leaves, xs, ys, jr.fold_in(native.key, number))

        def scan_all(leaves, data, rows, numbers):
            def body(leaves, at):
                return step_at(leaves, data, *at)

            return lax.scan(body, leaves, (rows, numbers))

        self._step = jax.jit(step_at, donate_argnums=0)
        self._scan = jax.jit(scan_all, donate_argnums=0)
        # On CPU a convolution in a compiled loop is slow (jax #12868).
        jaxpr = jax.make_jaxpr(scan_all)(self._leaves, *self._next(epochs=1))
        slow = "conv_general_dilated" in str(jaxpr)
        self.limit = None
        if scan and slow and jax.default_backend() == "cpu":
            self.limit = SLOW_SCAN_STEPS
        self.call = self._call_scan if scan else self._call_loop
        self._epoch = self._steps = 0

    def _next(self, epochs: int) -> tuple[Any, np.ndarray, np.ndarray]:
        data = jax.tree.map(jnp.asarray, self._data)
        size = len(data[0])
        whole = size // BATCH_SIZE * BATCH_SIZE
        orders = [
            data_module.order(self._key_data, epoch, size)[:whole]
            for epoch in range(self._epoch, self._epoch + epochs)
        ]
        rows = np.concatenate(orders).reshape(-1, BATCH_SIZE)
        rows = rows[: getattr(self, "limit", None)]
        numbers = np.arange(len(rows), dtype=np.int32) + self._steps
        self._epoch += epochs
        self._steps += len(rows)
        return data, rows, numbers

    def _call_scan(self) -> np.ndarray:
        self._leaves, run = self._scan(self._leaves, *self._next(self._epochs))
        return np.asarray(run)

    def _call_loop(self) -> np.ndarray:
        data, rows, numbers = self._next(self._epochs)
        run = []
        for row, number in zip(rows, numbers, strict=True):
            self._leaves, loss = self._step(self._leaves, data, row, number)
            run.append(loss)
        return np.asarray(run)


# --- races ------------------------------------------------------------------


def step_race(depth: int, rounds: int, tick: Tick) -> Race:
    """Times one training step of the model of some depth."""
    spec = DeepMLP(depth=depth, batch_norm="standard")
    xs = jr.normal(jr.key(SEED), (BATCH_SIZE, spec.size), DTYPE)
    ys = jnp.sin(xs)
    title = f"One step at {depth} blocks"

    floor, lowered = _plain_contender(spec, xs, ys)
    contenders, lowerings, held = [floor], {FLOOR: lowered}, []
    trainers = []
    for backend, library in LIBRARIES.items():
        trainer = build(spec, backend=backend, dtype=DTYPE)
        # The library's own forms, as its documentation writes them.
        module = importlib.import_module(f"impl_{backend}.bench")
        for name, make in module.CONTENDERS.items():
            step = make(trainer.native, spec.optimizer())
            contenders.append(Contender(name, lambda step=step: step(xs, ys)))
        name = f"Trainer over {library}"
        held.append(name)
        trainers.append(
            Contender(name, lambda t=trainer: t.step(xs, ys)["loss"])
        )
        lowerings[name] = trainer._step.lower(trainer.leaves, (xs, ys))
    contenders += trainers
    tick(f"{title}: check")
    firsts = verify(contenders, FLOOR, CHECK_STEPS)
    return Race(
        title=title,
        timings=measure(contenders, firsts, rounds, lambda: tick(title)),
        floors=(FLOOR,),
        held=tuple(held),
        programs=tuple(
            read_program(name, lowered.compile())
            for name, lowered in lowerings.items()
        ),
    )


def fit_race(name: str, epochs: int, rounds: int, tick: Tick) -> Race:
    """Times `fit` beside a hand-written loop and a hand-written scan."""
    # In stateful_mlp's default, "ema", one gradient of step 1 is round-off
    # that Adam scales up, and losses could not be held to the tolerance.
    spec = find_spec(name, {"batch_norm": "standard"})
    dataset = data_module.dataset(spec, dtype=DTYPE)
    data = (dataset.train_xs, dataset.train_ys)
    steps = epochs * (len(data[0]) // BATCH_SIZE)
    title = f"fit of {name}: {steps} steps"

    contenders = []
    notes = [f"{epochs} epoch(s) of {len(data[0])} examples."]
    for what, scan in ((LOOP, False), (SCAN, True)):
        plain = PlainFit(spec, data, epochs=epochs, scan=scan)
        taken = min(steps, plain.limit or steps)
        contenders.append(Contender(what, plain.call, taken))
        if taken < steps:
            notes.append(
                f"`{what}` takes {taken} steps only: on CPU a convolution "
                "in a compiled loop is slow (jax #12868)."
            )
    held = []
    for backend, library in LIBRARIES.items():
        trainer = build(spec, backend=backend, dtype=DTYPE)
        held.append(f"Trainer over {library}")
        contenders.append(
            Contender(held[-1], _fit(trainer, data, epochs), steps)
        )
    tick(f"{title}: check")
    firsts = verify(contenders, LOOP, 1)
    return Race(
        title=title,
        timings=measure(contenders, firsts, rounds, lambda: tick(title)),
        floors=(LOOP, SCAN),
        held=tuple(held),
        notes=tuple(notes),
    )


def _fit(trainer: Trainer, data: Any, epochs: int) -> Callable[[], Any]:
    return lambda: trainer.fit(
        *data, epochs=epochs, batch_size=BATCH_SIZE, progress=False
    )


def _native(backend: str, spec: Spec) -> Any:
    return build(spec, backend=backend, dtype=DTYPE).native


# --- checking and timing ----------------------------------------------------


def verify(
    contenders: Sequence[Contender], floor: str, calls: int
) -> dict[str, float]:
    """Runs every contender and checks its losses against the floor's.

    Args:
        contenders: fresh ones: this is their first call.
        floor: the contender to be judged by.
        calls: how often to call each.

    Returns:
        Seconds of each contender's first call.

    Raises:
        UnverifiedContenderError: naming the contender and the first step.
    """
    from common.agreement import tolerance

    firsts, runs = {}, {}
    for name, call, _ in contenders:
        began = time.perf_counter()
        found = [jax.block_until_ready(call())]
        firsts[name] = time.perf_counter() - began
        found += [call() for _ in range(calls - 1)]
        runs[name] = np.concatenate([np.atleast_1d(x) for x in found])
    for name, run in runs.items():
        # One that takes fewer steps is checked on those it takes.
        expected = runs[floor][: len(run)]
        for step, (got, want) in enumerate(zip(run, expected), 1):
            bound = tolerance(DTYPE, "trajectory", steps=step)
            if not abs(got - want) <= bound * np.max(np.abs(expected)):
                raise UnverifiedContenderError(
                    f"{name}, loss of step {step}: got {got}, expected "
                    f"{want} like {floor}. Make it train the same model "
                    "from the same values before it is timed."
                )
    return firsts


def measure(
    contenders: Sequence[Contender],
    firsts: dict[str, float],
    rounds: int,
    tick: Callable[[], None],
) -> tuple[Timing, ...]:
    """Times contenders in turn, in bursts, in a new order each round."""
    shuffle = random.Random(SEED).shuffle
    bursts = {c.name: _burst(c) for c in contenders}
    samples: dict[str, list[float]] = {c.name: [] for c in contenders}
    with _settled_memory():
        for _ in range(rounds):
            order = list(contenders)
            shuffle(order)
            for contender in order:
                samples[contender.name].append(
                    _sample(contender, bursts[contender.name])
                )
            tick()
    return tuple(
        Timing(
            contender=name,
            first_call=firsts[name],
            seconds=tuple(samples[name]),
            steps=steps,
        )
        for name, _, steps in contenders
    )


def _burst(contender: Contender) -> int:
    """Returns how many calls fill a burst."""
    _sample(contender, 1)
    calls = BURST_SECONDS / (_sample(contender, 2) * contender.steps)
    return min(max(round(calls), 1), MAX_BURST)


def _sample(contender: Contender, calls: int) -> float:
    """Returns the seconds a step, over a burst of calls."""
    if contender.steps == 1:
        # Whoever ran before has filled the caches with something else.
        jax.block_until_ready(contender.call())
    out = None
    began = time.perf_counter()
    for _ in range(calls):
        out = contender.call()
    jax.block_until_ready(out)
    seconds = time.perf_counter() - began
    return seconds / (calls * contender.steps)


@contextlib.contextmanager
def _settled_memory() -> Iterator[None]:
    """Keeps what compiling left behind out of later garbage collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def read_program(contender: str, compiled: Any) -> Program:
    """Counts what the compiler made of a step."""
    cost = compiled.cost_analysis() or {}
    lines = [line for line in compiled.as_text().splitlines() if " = " in line]
    entry = compiled.as_text().rsplit("\nENTRY ", 1)[-1]
    return Program(
        contender=contender,
        flops=float(cost.get("flops", 0)),
        bytes_accessed=float(cost.get("bytes accessed", 0)),
        instructions=len(lines),
        fusions=sum(" fusion(" in line for line in lines),
        parameters=entry.count(" parameter("),
    )


@contextlib.contextmanager
def _ticks(total: int, enabled: bool) -> Iterator[Tick]:
    """Shows a progress bar on the error stream, if that is a terminal."""
    console = rich.console.Console(stderr=True)
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TimeElapsedColumn(),
        console=console,
        disable=not (enabled and console.is_terminal),
    )
    with bar:
        task = bar.add_task("bench", total=total)

        def tick(what: str) -> None:
            checking = what.endswith(": check")
            bar.update(task, advance=0 if checking else 1, description=what)

        yield tick
