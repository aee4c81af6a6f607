"""Checking contenders against a floor, and timing them in turn."""

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from common.benchmark.report import Program, Timing

DTYPE = "float32"
BURST_SECONDS = 0.01
MAX_BURST = 50
SEED = 0


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
