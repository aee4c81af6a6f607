"""What training costs in each library, beside hand-written JAX.

Every contender is first made to agree with the floor: one that computes
something else is never timed. Then all take turns in short bursts, in a new
order each round, so that a slow second of the machine hits all of them.
"""

import contextlib
import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import rich.console
import rich.progress

from common.benchmark import plain as bench_plain
from common.benchmark.measure import (
    BURST_SECONDS,
    DTYPE,
    MAX_BURST,
    SEED,
    Contender,
    measure,
    read_program,
    verify,
)
from common.benchmark.report import Benchmark, Program, Race
from common.environment import versions
from common.models import find_spec
from common.models.deep_mlp import DeepMLP
from common.registry import find_contenders
from common.training import data as data_module
from common.training.building import build
from common.training.trainer import Trainer

LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
FLOOR = "plain JAX"
LOOP, SCAN = "plain JAX, Python loop", "plain JAX, lax.scan"

BATCH_SIZE = 32
# The loss before any update, after one, and after one that needed the first
# one's moments. Float32 runs drift apart soon after.
CHECK_STEPS = 3

DEPTHS = (2, 20, 100)
ROUNDS = 40
# Epochs of each model's `fit`: enough to train for 40 ms and more.
FITS = {"stateful_mlp": 256, "digits_cnn": 1}
FIT_ROUNDS = 16

CACHE = "jax_compilation_cache_dir"
COMMAND = "python -m common bench"

Tick = Callable[[str], None]


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
    load = _load()
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
            "compile_cache": getattr(jax.config, CACHE, None),
            "xla_flags": os.environ.get("XLA_FLAGS"),
            # What else the machine did: quartiles widen when it is loaded.
            "load_before": load,
            "load_after": _load(),
        },
        command=command,
        **_environment(),
    )


def _load() -> float | None:
    """Returns how many processes wanted a core in the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _environment() -> dict[str, Any]:
    """Says what all this runs on, and when."""
    device = jax.devices()[0]
    now = datetime.datetime.now(datetime.UTC)
    return {
        "versions": {"python": platform.python_version(), **versions()},
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
        for name, make in find_contenders(backend).items():
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
        programs=_programs(lowerings),
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
    batch = tuple(jnp.asarray(x[:BATCH_SIZE]) for x in data)
    native = build(spec, backend="reference", dtype=DTYPE).native
    leaves, step = bench_plain.make_step(spec, native)
    step = jax.jit(step, donate_argnums=0)
    lowerings = {LOOP: step.lower(leaves, *batch, native.key)}
    held = []
    for backend, library in LIBRARIES.items():
        trainer = build(spec, backend=backend, dtype=DTYPE)
        held.append(f"Trainer over {library}")
        lowerings[held[-1]] = trainer._step.lower(trainer.leaves, batch)
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
        programs=_programs(lowerings),
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


def _programs(lowerings: dict[str, Any]) -> tuple[Program, ...]:
    """Compiles each contender's single step, and counts what came out."""
    return tuple(
        read_program(name, lowered.compile())
        for name, lowered in lowerings.items()
    )


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
