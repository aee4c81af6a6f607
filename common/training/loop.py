"""The compiled training loop: chunks of steps, a tick and a check for each.

On CPU a convolution inside a compiled loop runs on one thread without its
fast kernels (jax #12868), so there the loop dispatches single steps.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from common.errors import NonFiniteLossError
from common.training import data as data_module

FIRST_CHUNK = 16
MAX_CHUNK = 1024
CHUNK_SECONDS = 0.2

Leaves = list[Array]
Run = dict[str, np.ndarray]


def loops_slowly(step: Callable[..., Any], *args: Any) -> bool:
    """Whether a step is better dispatched than run in a compiled loop."""
    if jax.default_backend() != "cpu":
        return False
    return "conv_general_dilated" in str(jax.make_jaxpr(step)(*args))


class Loop:
    """Runs a pure step over rows of example indices."""

    def __init__(self, pure_step: Callable[..., Any]):
        self._pure_step = pure_step
        self._step = jax.jit(self._step_at, donate_argnums=0)
        # Not donated: what goes in is the copy to go back to.
        self._chunk = jax.jit(self._run_chunk)
        self._copy = jax.jit(lambda xs: jax.tree.map(jnp.copy, xs))
        self._finite = jax.jit(_all_finite)
        self._dispatches: bool | None = None
        self._compiled = False
        self._count = FIRST_CHUNK

    def fit(
        self, trainer: Any, data: Any, size: int, epochs: int, batch_size: int
    ) -> Iterator[Run]:
        """Trains a trainer, yielding the metrics of each chunk of steps.

        The trainer is brought up to date before each yield.

        Raises:
            NonFiniteLossError: as `Trainer.fit` says.
        """
        end = data_module.Place(trainer.place.epoch + epochs, 0)

        def take(count):
            return data_module.take(
                trainer.run_key, trainer.place, end, size, batch_size, count
            )

        while trainer.place.epoch < end.epoch:
            rows, place = take(self._count)
            if not len(rows):  # too few examples left of a loaded epoch
                trainer.place = place
                continue
            began = time.perf_counter()
            leaves, run, finite = self.run(trainer._leaves, data, rows)
            if not (finite and np.isfinite(run["loss"]).all()):
                yield from self._recover(trainer, data, take, len(rows))
                continue
            trainer._leaves, trainer.place = leaves, place
            if self._compiled:
                seconds = (time.perf_counter() - began) / len(rows)
                count = int(CHUNK_SECONDS / seconds)
                self._count = min(max(count, 1), MAX_CHUNK)
            self._compiled = True
            yield run

    def run(
        self, leaves: Leaves, data: Any, rows: np.ndarray
    ) -> tuple[Leaves, Run, bool]:
        """Takes a step for each row, leaving `leaves` usable.

        Returns:
            The leaves, the metrics of each step, and whether the leaves are
            all finite.
        """
        if self._dispatches is None:
            self._dispatches = loops_slowly(
                self._step_at, leaves, data, rows[0]
            )
        if self._dispatches:
            leaves = self._copy(leaves)
            runs = []
            for row in rows:
                leaves, metrics = self._step(leaves, data, row)
                runs.append(metrics)
            run = {
                name: np.asarray([metrics[name] for metrics in runs])
                for name in runs[0]
            }
            return leaves, run, bool(self._finite(leaves))
        padded = np.zeros((MAX_CHUNK, rows.shape[1]), np.int32)
        padded[: len(rows)] = rows
        leaves, run, finite = self._chunk(
            leaves, data, padded, np.int32(len(rows))
        )
        run = {name: np.asarray(x)[: len(rows)] for name, x in run.items()}
        return leaves, run, bool(finite)

    def _recover(self, trainer, data, take, steps) -> Iterator[Run]:
        """Replays a chunk up to the step before the bad one, and raises.

        On a device that is not deterministic the replay may come out finite:
        then it counts.
        """
        for _ in range(steps):
            row, place = take(1)
            leaves, run, finite = self.run(trainer._leaves, data, row)
            loss = run["loss"][0]
            if not np.isfinite(loss) or not finite:
                step = int(trainer.state().step) + 1
                what = (
                    "non-finite values in the updated model"
                    if np.isfinite(loss)
                    else f"a loss of {loss}"
                )
                raise NonFiniteLossError(step, what)
            trainer._leaves, trainer.place = leaves, place
            yield run

    def _step_at(self, leaves, data, row):
        batch = jax.tree.map(
            lambda x: jnp.take(x, row, axis=0, mode="clip"), data
        )
        return self._pure_step(leaves, batch)

    def _run_chunk(self, leaves, data, rows, count):
        metrics = jax.eval_shape(self._step_at, leaves, data, rows[0])[1]
        run = {k: jnp.zeros(MAX_CHUNK, x.dtype) for k, x in metrics.items()}

        def body(i, carry):
            leaves, run = carry
            leaves, metrics = self._step_at(leaves, data, rows[i])
            return leaves, {k: run[k].at[i].set(metrics[k]) for k in run}

        leaves, run = lax.fori_loop(0, count, body, (leaves, run))
        return leaves, run, _all_finite(leaves)


def _all_finite(leaves: Leaves) -> Array:
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in floats]))
