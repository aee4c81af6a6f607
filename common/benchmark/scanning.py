"""What it costs to scan and to rematerialize the blocks of a deep model.

The contenders are one model of one library whose blocks are listed or
stacked, with and without `remat`. They start from the same values.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr

from common.benchmark.measure import DTYPE, SEED, Contender, measure
from common.benchmark.report import ratio
from common.benchmark.suite import build_calm
from common.models.deep_mlp import DeepMLP

WAYS: dict[str, dict[str, Any]] = {
    "a list": {},
    "`scan=True`": {"scan": True},
    "`remat=True`": {"remat": True},
    "`scan=True, remat=True`": {"scan": True, "remat": True},
}
"""The hyper-parameters of each contender; the first is the baseline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What one contender costs.

    Attributes:
        backend: the library.
        way: a key of `WAYS`.
        size: the number of features.
        batch_size: the number of examples.
        first_call: the seconds of the first step, which compiles: the least
            of several.
        seconds: the seconds of a step, the median.
        ratio: the median ratio of a step to the list's in the same round.
        temporary: bytes that the compiled step needs besides its arguments.
    """

    backend: str
    way: str
    size: int
    batch_size: int
    first_call: float
    seconds: float
    ratio: float
    temporary: int


def scan_costs(
    backend: str,
    *,
    depth: int,
    size: int,
    batch_size: int,
    rounds: int,
    firsts: int = 1,
    ways: Sequence[str] = tuple(WAYS),
    tick: Callable[[], None] = lambda: None,
) -> list[Cost]:
    """Measures a training step of each contender.

    Args:
        backend: `"equinox"` or `"flax"`.
        depth: the number of blocks.
        size: the number of features.
        batch_size: the number of examples.
        rounds: the number of samples of each contender, taken in turns.
        firsts: how often each is compiled.
        ways: the contenders, with the baseline first.
        tick: called after each round.
    """
    xs = jr.normal(jr.key(SEED), (batch_size, size), DTYPE)
    batch = xs, jnp.sin(xs)
    contenders, seconds, temporary = [], {}, {}
    for way in ways:
        spec = DeepMLP(depth=depth, size=size, **WAYS[way])
        found = []
        trainer = build_calm(spec, backend)
        for repeat in range(firsts):
            if repeat:
                trainer = build_calm(spec, backend)
            began = time.perf_counter()
            jax.block_until_ready(trainer.step(*batch)["loss"])
            found.append(time.perf_counter() - began)
        seconds[way] = min(found)
        step = trainer._step.lower(trainer.leaves, batch)
        analysis: Any = step.compile().memory_analysis()
        temporary[way] = int(getattr(analysis, "temp_size_in_bytes", 0))
        contenders.append(Contender(way, _step_of(trainer, batch)))
    timings = measure(contenders, seconds, rounds, tick)
    return [
        Cost(
            backend=backend,
            way=timing.contender,
            size=size,
            batch_size=batch_size,
            first_call=timing.first_call,
            seconds=timing.median,
            ratio=ratio(timing.seconds, timings[0].seconds).median,
            temporary=temporary[timing.contender],
        )
        for timing in timings
    ]


def _step_of(trainer: Any, batch: Any) -> Callable[[], Any]:
    return lambda: trainer.step(*batch)["loss"]
