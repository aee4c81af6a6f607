"""What training costs in each library, beside hand-written JAX.

Every contender is first made to agree with the floor: one that computes
something else is never timed. Then all take turns in short bursts, in a new
order each round, so that a slow second of the machine hits all of them.
"""

import contextlib
import dataclasses
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
import rich.console
import rich.progress

from common import bench_plain
from common import data as data_module
from common.bench_report import Benchmark, Program, Race, Timing
from common.registry import build, find_spec
from common.specs.deep_mlp import DeepMLP
from common.trainer import VERSIONED, Trainer

DTYPE = "float32"
LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
FLOOR = "plain JAX"
LOOP, SCAN = "plain JAX, Python loop", "plain JAX, lax.scan"

BATCH_SIZE = 32
# The loss before any update, after one, and after one that needed the first
# one's moments. Float32 runs drift apart soon after.
CHECK_STEPS = 3
BURST_SECONDS = 0.01
MAX_BURST = 50
SEED = 0

DEPTHS = (2, 20, 100)
ROUNDS = 60
# Epochs of each model's `fit`: enough to train for 40 ms and more.
FITS = {"stateful_mlp": 256, "digits_cnn": 1}
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
    return Benchmark(
        races=tuple(races),
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
            "compile_cache": jax.config.read("jax_compilation_cache_dir"),
            "xla_flags": os.environ.get("XLA_FLAGS"),
        },
        command=command,
        **_environment(),
    )


def _environment() -> dict[str, Any]:
    """Says what all this runs on, and when."""
    device = jax.devices()[0]
    versions = {name: metadata.version(name) for name in VERSIONED}
    now = datetime.datetime.now(datetime.UTC)
    return {
        "versions": {"python": platform.python_version(), **versions},
        "device": f"{device.device_kind} ({device.platform})",
        "cpu_count": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "date": now.isoformat(timespec="seconds"),
    }


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
        trainer = build_calm(spec, backend)
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
        plain = bench_plain.Fit(
            spec,
            build(spec, backend="reference", dtype=DTYPE).native,
            data,
            epochs=epochs,
            batch_size=BATCH_SIZE,
            scan=scan,
        )
        contenders.append(Contender(what, plain, plain.steps))
        if plain.steps < steps:
            notes.append(
                f"`{what}` takes {plain.steps} steps only: on CPU a "
                "convolution in a compiled loop is slow (jax #12868)."
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


def build_calm(spec: DeepMLP, backend: str) -> Trainer:
    """Builds a deep model whose losses do not blow up round-off.

    From random weights a hundred BatchNorms without skip connections are
    chaotic: two correct programs differ by percents in the first loss, and
    nothing could be verified. Near the identity, where hardly any relu is
    closed, they agree; the arithmetic is the same.
    """
    trainer = build(spec, backend=backend, dtype=DTYPE)
    state = trainer.state()
    params = dict(state.params)
    for i in range(spec.depth):
        weight, bias = f"blocks.{i}.linear.weight", f"blocks.{i}.norm.bias"
        noise = np.float32(0.3) * params[weight]
        params[weight] = np.eye(spec.size, dtype=DTYPE) + noise
        params[bias] = np.full_like(params[bias], 2)
    return trainer.load(dataclasses.replace(state, params=params))


def _fit(trainer: Trainer, data: Any, epochs: int) -> Callable[[], Any]:
    return lambda: trainer.fit(
        *data, epochs=epochs, batch_size=BATCH_SIZE, progress=False
    )


def _plain_contender(spec: DeepMLP, xs: Any, ys: Any) -> tuple[Contender, Any]:
    """Returns the floor, and its lowered program."""
    native = build_calm(spec, "reference").native
    leaves, step = bench_plain.make_step(spec, native)
    step = jax.jit(step, donate_argnums=0)
    lowered = step.lower(leaves, xs, ys)

    def call():
        nonlocal leaves
        leaves, loss = step(leaves, xs, ys)
        return loss

    return Contender(FLOOR, call), lowered


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
    for name, call, steps in contenders:
        began = time.perf_counter()
        found = [jax.block_until_ready(call())]
        firsts[name] = time.perf_counter() - began
        found += [call() for _ in range(calls - 1)]
        runs[name] = np.concatenate([np.atleast_1d(x) for x in found])
        if len(runs[name]) != steps * calls:
            raise UnverifiedContenderError(
                f"{name}: got {len(runs[name])} losses, expected "
                f"{steps * calls}. Make it take every step."
            )
    for name, run in runs.items():
        # One that takes fewer steps is checked on those it takes.
        expected = runs[floor][: len(run)]
        for step, (got, want) in enumerate(zip(run, expected, strict=True), 1):
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
