"""Verifies contenders against a baseline and times them in turns."""

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from common.benchmark.report import Program, Timing

DTYPE = "float32"
BURST_SECONDS = 0.01
MAX_BURST = 50
SEED = 0


class UnverifiedContenderError(ValueError):
    """The losses of a contender are not those of the baseline."""


class Contender(NamedTuple):
    """Something to time.

    Attributes:
        name: the name in the tables.
        call: continues training and returns the losses without waiting.
        steps: the number of training steps in one call.
    """

    name: str
    call: Callable[[], Any]
    steps: int = 1


def verify(
    contenders: Sequence[Contender], baseline: str, calls: int
) -> dict[str, float]:
    """Runs every contender and compares its losses with the baseline's.

    Args:
        contenders: the contenders, which have not been called yet.
        baseline: the name of the contender with the expected losses.
        calls: the number of calls of each contender.

    Returns:
        The seconds of each contender's first call.

    Raises:
        UnverifiedContenderError: if a loss differs, or if losses are missing.
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
                f"{steps * calls}. Return one loss for every training step."
            )
    for name, run in runs.items():
        # A contender that takes fewer steps is compared on those steps.
        expected = runs[baseline][: len(run)]
        for step, (got, want) in enumerate(zip(run, expected, strict=True), 1):
            bound = tolerance(DTYPE, "trajectory", steps=step)
            if not abs(got - want) <= bound * np.max(np.abs(expected)):
                raise UnverifiedContenderError(
                    f"{name}, loss of step {step}: got {got}, expected "
                    f"{want} like {baseline}. Train the same model from the "
                    "same initial values and batches."
                )
    return firsts


def first_call(call: Callable[[], Any]) -> float:
    """Returns the seconds of a call that traces, compiles and runs.

    What was traced or compiled before is forgotten. Within `cold`, nothing is
    read from the disk either.
    """
    jax.clear_caches()
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


@contextlib.contextmanager
def cold() -> Iterator[None]:
    """Compiles without the compilation cache on the disk."""
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    # JAX remembers whether there is a cache.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


def _nothing() -> None:
    """Does nothing after a round."""


def measure(
    contenders: Sequence[Contender],
    firsts: dict[str, float],
    rounds: int,
    tick: Callable[[], None] = _nothing,
) -> tuple[Timing, ...]:
    """Times contenders in turns, in a new order in each round."""
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
    """Returns the number of calls that take about `BURST_SECONDS`."""
    _sample(contender, 1)
    calls = BURST_SECONDS / (_sample(contender, 2) * contender.steps)
    return min(max(round(calls), 1), MAX_BURST)


def _sample(contender: Contender, calls: int) -> float:
    """Returns the seconds per step over a burst of calls."""
    if contender.steps == 1:
        # The previous contender has filled the caches with its own data.
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
    """Excludes the objects of compilation from later garbage collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def read_program(contender: str, compiled: Any) -> Program:
    """Reads the cost analysis and instruction counts of a program."""
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
