"""The compiled training loop: chunks of steps, each checked for NaNs.

On CPU a convolution inside a compiled loop runs on one thread without its
fast kernels (jax #12868), so there the loop dispatches single steps.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from common.training.data import Place, Take
from common.training.members import describe
from common.training.placement import ONE_DEVICE, Placement

FIRST_CHUNK = 16
MAX_CHUNK = 1024
"""The largest number of steps of a chunk, and the padded size of its rows."""
CHUNK_SECONDS = 0.2

Leaves = list[Array]
StepMetrics = dict[str, np.ndarray]
"""The metrics of consecutive steps, by name."""


class Chunk(NamedTuple):
    """Consecutive training steps, and the run after the last of them.

    Attributes:
        leaves: the trainer's arrays after these steps.
        place: the place in the data order after these steps.
        metrics: the metrics of each step. Empty if no step was taken.
        failure: what was not finite in the step after these, or `None` if the
            run can continue.
    """

    leaves: Leaves
    place: Place
    metrics: StepMetrics
    failure: str | None = None


def loops_slowly(step: Callable[..., Any], *args: Any) -> bool:
    """Returns whether to dispatch single steps instead of a compiled loop."""
    if jax.default_backend() != "cpu":
        return False
    return "conv_general_dilated" in str(jax.make_jaxpr(step)(*args))


class Loop:
    """Runs a pure step over rows of example indices.

    It caches the compiled programs and the length of a chunk, but no state of
    the run: the leaves and the place are arguments and results.
    """

    def __init__(
        self,
        pure_step: Callable[[Leaves, Any], Any],
        *,
        dispatches: bool | None = None,
        placement: Placement | None = None,
        members: int | None = None,
    ):
        """Makes a loop.

        Args:
            pure_step: `(leaves, batch) -> (leaves, metrics)`.
            dispatches: dispatches single steps if true, runs a compiled loop
                if false. By default, `loops_slowly` decides.
            placement: where the leaves and the batches lie. By default on
                one device.
            members: the number of members, whose leaves have a leading axis
                for the member, or `None`.
        """
        self._pure_step = pure_step
        self._members = members
        self._dispatches = dispatches
        self._placement = placement = placement or ONE_DEVICE
        one, many = placement.replicated, placement.leaves
        self._step = placement.jit(
            self._step_at, (many, one), donate_argnums=0
        )
        # Not donated: a chunk that is not finite is replayed from its input.
        self._chunk = placement.jit(self._run_chunk, (many, one, one))
        self._copy = placement.jit(lambda xs: jax.tree.map(jnp.copy, xs), many)
        self._finite = placement.jit(self._stays_finite, one)
        self._compiled = False
        self._count = FIRST_CHUNK

    def chunks(
        self, leaves: Leaves, place: Place, end: Place, data: Any, take: Take
    ) -> Iterator[Chunk]:
        """Trains from one place in the data order to another.

        If a chunk is not finite, its steps are replayed one by one. The last
        chunk is then the failure of the first step that is not finite. On a
        device that is not deterministic the replay may be finite; the run
        then continues from it.

        Args:
            leaves: the trainer's arrays. They are not donated.
            place: where to start in the data order.
            end: where to stop.
            data: a pytree of arrays whose first axis is the example.
            take: returns the examples of the next steps.

        Yields:
            The run after each chunk of steps.
        """
        while place.epoch < end.epoch:
            rows, next_place = take(place, end, count=self._count)
            if not len(rows):  # too few examples are left for another step
                place = next_place
                yield Chunk(leaves, place, {})
                continue
            began = time.perf_counter()
            chunk = self._try(leaves, data, rows, next_place)
            if chunk.failure is None:
                self._adapt((time.perf_counter() - began) / len(rows))
                leaves, place = chunk.leaves, chunk.place
                yield chunk
                continue
            for _ in rows:
                row, next_place = take(place, end, count=1)
                chunk = self._try(leaves, data, row, next_place)
                if chunk.failure is not None:
                    yield Chunk(leaves, place, {}, chunk.failure)
                    return
                leaves, place = chunk.leaves, chunk.place
                yield chunk

    def run(
        self, leaves: Leaves, data: Any, rows: np.ndarray
    ) -> tuple[Leaves, StepMetrics, np.ndarray]:
        """Takes a step for each row and leaves its input usable.

        Returns:
            The leaves, the metrics of each step, and whether the leaves are
            as finite as they were, those of each member if there are any.
        """
        if self._dispatches is None:
            self._dispatches = loops_slowly(
                self._step_at, leaves, data, rows[0]
            )
        if self._dispatches:
            before, leaves = leaves, self._copy(leaves)
            steps = []
            for row in rows:
                leaves, metrics = self._step(leaves, data, row)
                steps.append(metrics)
            stacked = {
                name: np.asarray([metrics[name] for metrics in steps])
                for name in steps[0]
            }
            return leaves, stacked, np.asarray(self._finite(before, leaves))
        padded = np.zeros((MAX_CHUNK, rows.shape[1]), np.int32)
        padded[: len(rows)] = rows
        leaves, metrics, finite = self._chunk(
            leaves, data, padded, np.int32(len(rows))
        )
        metrics = {k: np.asarray(x)[: len(rows)] for k, x in metrics.items()}
        return leaves, metrics, np.asarray(finite)

    def _try(self, leaves, data, rows, place) -> Chunk:
        leaves, metrics, finite = self.run(leaves, data, rows)
        loss = metrics["loss"]
        failure = None
        if not np.isfinite(loss).all():
            failure = f"a loss of {loss[~np.isfinite(loss)][0]}"
            finite = np.isfinite(loss).all(0)
        elif not np.all(finite):
            failure = "non-finite values in the updated model"
        if failure is not None and self._members is not None:
            failure += describe(~np.asarray(finite))
        return Chunk(leaves, place, metrics, failure)

    def _adapt(self, seconds: float) -> None:
        """Chooses the length of the next chunk by the seconds of a step."""
        if self._compiled:  # the first call includes compilation
            count = int(CHUNK_SECONDS / seconds)
            _, count = self._placement.agree(False, count)
            self._count = min(max(count, 1), MAX_CHUNK)
        self._compiled = True

    def _step_at(self, leaves, data, row):
        batch = jax.tree.map(
            lambda x: jnp.take(x, row, axis=0, mode="clip"), data
        )
        return self._pure_step(leaves, self._placement.constrain(batch))

    def _run_chunk(self, leaves, data, rows, count):
        like = jax.eval_shape(self._step_at, leaves, data, rows[0])[1]
        metrics = {
            k: jnp.zeros((MAX_CHUNK, *x.shape), x.dtype)
            for k, x in like.items()
        }

        def body(i, carry):
            leaves, metrics = carry
            leaves, step = self._step_at(leaves, data, rows[i])
            return leaves, {k: metrics[k].at[i].set(step[k]) for k in metrics}

        after, metrics = lax.fori_loop(0, count, body, (leaves, metrics))
        return after, metrics, self._stays_finite(leaves, after)

    def _stays_finite(self, before: Leaves, after: Leaves) -> Array:
        """Tells whether no element became infinite or NaN, for each member.

        A model may hold infinities from the start, in an attention mask.
        """
        start = 0 if self._members is None else 1
        found = [
            jnp.all(
                jnp.isfinite(new) | ~jnp.isfinite(old),
                axis=tuple(range(start, new.ndim)),
            )
            for old, new in zip(before, after, strict=True)
            if jnp.issubdtype(new.dtype, jnp.inexact)
        ]
        return jnp.all(jnp.array(found), axis=0)
