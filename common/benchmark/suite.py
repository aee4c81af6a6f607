"""Measures the cost of training in each library against hand-written JAX.

The losses of every contender are first compared with the baseline's, and the
benchmark stops if they differ. Then the contenders take turns in short
bursts, in a new order in each round, so that a slow second of the machine
affects all of them.
"""

import dataclasses
import datetime
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

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
from common.protocol import Spec
from common.registry import find_contenders
from common.rendering.progress import ProgressBar
from common.training import data as data_module
from common.training.building import build
from common.training.trainer import Trainer

LIBRARIES = {"equinox": "Equinox", "flax": "Flax"}
BASELINE = "plain JAX"
LOOP, SCAN = "plain JAX, Python loop", "plain JAX, lax.scan"

BATCH_SIZE = 32
# Three losses cover the initial values, one update, and an update that uses
# the moments of the first. Rounding errors of float32 grow soon after.
CHECK_STEPS = 3

DEPTHS = (2, 20, 100)
ROUNDS = 40
# The epochs of each model's `fit`, which takes at least 40 ms.
FITS = {"stateful_mlp": 256, "digits_cnn": 1}
FIT_ROUNDS = 16

CACHE = "jax_compilation_cache_dir"
COMMAND = "eqx-vs-nnx bench"


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
        depths: the numbers of blocks of the models whose step is timed.
        fits: the number of epochs of `fit`, by the name of the spec.
        rounds: the number of samples of each contender; `fit` takes about
            two fifths as many.
        quick: whether to time only the smallest model with a few samples.
        progress: whether to show a progress bar on a terminal.
        command: the command that reproduces the run.

    Raises:
        UnverifiedContenderError: if the losses of a contender are not those
            of the baseline. Its race is not timed.
    """
    if depths is None:
        depths = DEPTHS[:1] if quick else DEPTHS
    if fits is None:
        fits = {"stateful_mlp": 2} if quick else FITS
    if rounds is None:
        rounds = 3 if quick else ROUNDS
    fit_rounds = max(2, rounds * FIT_ROUNDS // ROUNDS)
    total = len(depths) * rounds + len(fits) * fit_rounds
    load_before = load()
    # The models are float32 with JAX's defaults, whatever the caller set.
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        ProgressBar(total, "benchmark", enabled=progress) as bar,
    ):
        jax.block_until_ready(jnp.zeros(()) + 1)  # start the runtime
        races = [step_race(depth, rounds, bar) for depth in depths]
        races += [
            fit_race(name, epochs, fit_rounds, bar)
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
            # A loaded machine widens the quartiles.
            "load_before": load_before,
            "load_after": load(),
        },
        command=command,
        **environment(),
    )


def load() -> float | None:
    """Returns the load average of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def environment() -> dict[str, Any]:
    """Returns the versions, the device and the date."""
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


def step_race(depth: int, rounds: int, bar: ProgressBar) -> Race:
    """Times one training step of a model with a number of blocks."""
    spec = DeepMLP(depth=depth, batch_norm="standard")
    xs = jr.normal(jr.key(SEED), (BATCH_SIZE, spec.size), DTYPE)
    ys = jnp.sin(xs)
    title = f"One step at {depth} blocks"

    baseline, lowered = _plain_contender(spec, xs, ys)
    contenders, lowerings, judged = [baseline], {BASELINE: lowered}, []
    trainers = []
    for backend, library in LIBRARIES.items():
        trainer = build_calm(spec, backend)
        # The training steps of the library's documentation.
        for name, make in find_contenders(backend).items():
            step = make(trainer.native, spec.optimizer())
            contenders.append(Contender(name, lambda step=step: step(xs, ys)))
        users = build(
            as_user_model(trainer.native),
            loss=spec.loss,
            optimizer=spec.optimizer(),
        )
        for name, one in (
            (f"Trainer over {library}", trainer),
            (f"build(model=...) over {library}", users),
        ):
            judged.append(name)
            trainers.append(
                Contender(name, lambda one=one: one.step(xs, ys)["loss"])
            )
            lowerings[name] = one._step.lower(one.leaves, (xs, ys))
    contenders += trainers
    bar.describe(f"{title}: verifying")
    firsts = verify(contenders, BASELINE, CHECK_STEPS)
    bar.describe(title)
    return Race(
        title=title,
        timings=measure(contenders, firsts, rounds, bar.advance),
        baselines=(BASELINE,),
        judged=tuple(judged),
        programs=_programs(lowerings),
    )


def as_user_model(native: Any) -> Any:
    """Returns what a user would have: a module, or a model and its state."""
    module = getattr(native, "module", None)
    return (native.model, native.state) if module is None else module


def fit_race(name: str, epochs: int, rounds: int, bar: ProgressBar) -> Race:
    """Times `fit` against a hand-written loop and a hand-written scan."""
    # With "ema", the default of stateful_mlp, one gradient of step 1 is zero
    # except for round-off. Adam amplifies this round-off to a full step, so
    # the losses would differ by more than the tolerance.
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
                f"`{what}` takes only {plain.steps} steps, because "
                "convolutions in compiled loops are slow on CPU (jax #12868)."
            )
    batch = tuple(jnp.asarray(x[:BATCH_SIZE]) for x in data)
    native = build(spec, backend="reference", dtype=DTYPE).native
    leaves, step = bench_plain.make_step(spec, native)
    step = jax.jit(step, donate_argnums=0)
    lowerings = {LOOP: step.lower(leaves, *batch, native.key)}
    judged = []
    for backend, library in LIBRARIES.items():
        trainer = build(spec, backend=backend, dtype=DTYPE)
        judged.append(f"Trainer over {library}")
        lowerings[judged[-1]] = trainer._step.lower(trainer.leaves, batch)
        contenders.append(
            Contender(judged[-1], _fit(trainer, data, epochs), steps)
        )
    bar.describe(f"{title}: verifying")
    firsts = verify(contenders, LOOP, 1)
    bar.describe(title)
    return Race(
        title=title,
        timings=measure(contenders, firsts, rounds, bar.advance),
        baselines=(LOOP, SCAN),
        judged=tuple(judged),
        programs=_programs(lowerings),
        notes=tuple(notes),
    )


def build_calm(spec: Spec, backend: str, **settings: Any) -> Trainer:
    """Builds a model whose losses do not amplify round-off.

    A stack of a hundred batch normalizations without skip connections is
    chaotic with random weights: two correct programs differ by several
    percent in the first loss, so no loss could be verified. With weights
    near the identity and positive biases, where few units are zeroed by
    ReLU, the losses agree. The cost of a step is the same.
    """
    trainer = build(spec, backend=backend, dtype=DTYPE, **settings)
    if not isinstance(spec, DeepMLP):
        return trainer
    state = trainer.state()
    params = dict(state.params)
    for i in range(spec.depth):
        weight, bias = f"blocks.{i}.linear.weight", f"blocks.{i}.norm.bias"
        noise = np.float32(0.3) * params[weight]
        params[weight] = np.eye(spec.size, dtype=DTYPE) + noise
        params[bias] = np.full_like(params[bias], 2)
    return trainer.load(dataclasses.replace(state, params=params))


def _programs(lowerings: dict[str, Any]) -> tuple[Program, ...]:
    """Compiles the step of each contender and reads its program."""
    return tuple(
        read_program(name, lowered.compile())
        for name, lowered in lowerings.items()
    )


def _fit(trainer: Trainer, data: Any, epochs: int) -> Callable[[], Any]:
    return lambda: trainer.fit(
        *data, epochs=epochs, batch_size=BATCH_SIZE, progress=False
    )


def _plain_contender(spec: DeepMLP, xs: Any, ys: Any) -> tuple[Contender, Any]:
    """Returns the baseline and its lowered program."""
    native = build_calm(spec, "reference").native
    leaves, step = bench_plain.make_step(spec, native)
    step = jax.jit(step, donate_argnums=0)
    lowered = step.lower(leaves, xs, ys)

    def call():
        nonlocal leaves
        leaves, loss = step(leaves, xs, ys)
        return loss

    return Contender(BASELINE, call), lowered
