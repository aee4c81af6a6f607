"""Judges a comparison: the largest error and first mismatch of each row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common import agreement
from common.comparison.rows import ORDER, Place, Row
from common.state import State

Arrays = Mapping[str, Any]


class Judge:
    """Collects one row for each quantity and pair, step by step.

    Where a run that was nudged by one rounding error is judged as well, the
    errors between it and the left run show how much rounding is amplified.
    Errors that are not much larger are no mismatch. In mixed precision, a run
    in float32 takes the place of the nudged run.
    """

    def __init__(
        self,
        dtype: str,
        pairs: Sequence[tuple[str, str]],
        *,
        label: str = "",
        nudged: str | None = None,
        pooled: bool = False,
    ):
        """Prepares a judgment.

        Args:
            dtype: the dtype whose tolerances apply.
            pairs: the names of the left and the right of each comparison.
            label: the dtype that the rows show.
            nudged: the name of the run that is the yardstick.
            pooled: whether the largest amplification of any array counts for
                all arrays of a quantity.
        """
        self._dtype = dtype
        self._pairs = list(pairs)
        self._label = label
        self._nudged = nudged
        self._pooled = pooled
        self._rows: dict[tuple[str, str, str], Row] = {}
        self._peaks: dict[tuple[str, str, str], float] = {}
        self._noises: dict[tuple[str, str, str], float] = {}

    def rows(self) -> list[Row]:
        """Returns the rows in the order of proof, then by pair."""
        return [
            self._rows[quantity, left, right]
            for quantity in ORDER
            for left, right in self._pairs
            if (quantity, left, right) in self._rows
        ]

    def values(
        self, quantity: str, step: int, arrays: Mapping[str, Arrays]
    ) -> None:
        """Judges arrays by name, each relative to its own magnitude."""
        for left, right in self._pairs:
            errors = agreement.relative_errors(arrays[left], arrays[right])
            noise = self._noise(arrays[left], arrays)
            self._add(quantity, left, right, step, errors, noise)

    def losses(self, step: int, losses: Mapping[str, Any]) -> None:
        """Judges the losses of a step. A loss that is not finite is a
        mismatch."""
        for left, right in self._pairs:
            a, b = losses[left], losses[right]
            finite = np.isfinite(a) and np.isfinite(b)
            errors = {"": agreement.relative_error(a, b) if finite else np.inf}
            nudged = {name: {"": x} for name, x in losses.items()}
            noise = self._noise({"": a}, nudged)
            if step == 1:
                self._add("loss", left, right, step, errors, noise)
            self._add("trajectory", left, right, step, errors, noise)

    def handed_over(
        self, copies: Mapping[str, State], originals: Mapping[str, State]
    ) -> None:
        """Judges whether both start equal and whether copying is exact."""
        for left, right in self._pairs:
            errors = agreement.relative_errors(
                originals[left].flat(), originals[right].flat()
            )
            for name in (left, right):
                copying = agreement.relative_errors(
                    copies[name].flat(), originals[name].flat()
                )
                errors |= {k: v for k, v in copying.items() if v > errors[k]}
            self._add("state", left, right, 0, errors)

    def first_step(self, after: Mapping[str, State]) -> None:
        """Judges the buffers, the parameters and the optimizer state after
        the first step."""
        for left, right in self._pairs:
            a, b = after[left], after[right]
            for quantity, group in (
                ("buffers", "buffers"),
                ("update", "params"),
                ("update", "opt"),
            ):
                x, y = getattr(a, group), getattr(b, group)
                errors = agreement.relative_errors(x, y)
                noise = self._noise(x, _groups(after, group))
                self._add(quantity, left, right, 1, errors, noise)

    def state(self, step: int, states: Mapping[str, State]) -> None:
        """Judges the State after a step.

        Errors of the optimizer state are relative to the largest magnitude
        that it has had. Gradients become small as training succeeds, but
        their rounding errors do not.
        """
        for left, right in self._pairs:
            a, b = states[left], states[right]
            for group in ("params", "buffers"):
                x, y = getattr(a, group), getattr(b, group)
                errors = agreement.relative_errors(x, y)
                noise = self._noise(x, _groups(states, group))
                self._add("parameters", left, right, step, errors, noise)
            peaks = {}
            for name in a.opt.keys() & b.opt.keys():
                magnitude = max(
                    map(agreement.magnitude, (a.opt[name], b.opt[name]))
                )
                key = (left, right, name)
                self._peaks[key] = max(magnitude, self._peaks.get(key, 0.0))
                peaks[name] = self._peaks[key]
            errors = agreement.relative_errors(a.opt, b.opt, peaks)
            noise = self._noise(a.opt, _groups(states, "opt"), peaks)
            self._add("moments", left, right, step, errors, noise)

    def stale(
        self,
        step: int,
        before: Mapping[str, State],
        changed: Mapping[str, set[str]],
    ) -> None:
        """Judges whether training changed every buffer.

        Args:
            step: the number of steps that were taken.
            before: the States before the first step.
            changed: the names of the buffers that some step changed.
        """
        for left, right in self._pairs:
            # From the start of a run, two steps change every buffer. One may
            # not: the vectors of a spectral norm can be a fixed point in
            # float32 until the weight changes. Later, a buffer that has
            # converged may stay the same, but in both backends.
            if int(before[left].step) == 0 and step > 1:
                expected = set(before[left].buffers)
            else:
                expected = changed[left] | changed[right]
            unchanged = [
                f"{name}.{leaf}"
                for name in (left, right)
                for leaf in sorted(expected - changed[name])
            ]
            self._count("stale", left, right, step, unchanged)

    def overwritten(self, step: int, changed: Mapping[str, list[str]]) -> None:
        """Judges whether inference left every array unchanged."""
        for left, right in self._pairs:
            names = [
                f"{name}.{leaf}"
                for name in (left, right)
                for leaf in changed[name]
            ]
            self._count("overwritten", left, right, step, names)

    def operations(self, wrong: Mapping[str, list[str]]) -> None:
        """Judges whether operations compute in the dtypes that they should.

        Args:
            wrong: those that do not, by run.
        """
        for left, right in self._pairs:
            names = [
                f"{name}: {operation}"
                for name in (left, right)
                for operation in wrong[name]
            ]
            self._count("precision", left, right, 0, names)

    def _count(
        self, quantity: str, left: str, right: str, step: int, names: list[str]
    ) -> None:
        """Adds a row that counts the arrays with a mismatch."""
        leaf = names[0] if names else ""
        place = Place(step, leaf, float(len(names)))
        first = place if names else None
        self._rows[quantity, left, right] = Row(
            quantity, left, right, place, 0.0, first, self._label
        )

    def _noise(
        self,
        left: Arrays,
        arrays: Mapping[str, Arrays],
        scales: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Returns what one rounding error does to each array of the left."""
        if self._nudged is None:
            return {}
        return agreement.relative_errors(left, arrays[self._nudged], scales)

    def _largest(
        self, key: tuple[str, str, str], noise: Mapping[str, float]
    ) -> float:
        """Returns the largest noise of any array, in mixed precision so far.

        Which array a rounding error changes, and at which step, is chance.
        """
        largest = max(noise.values())
        if self._dtype in agreement.EPS or not np.isfinite(largest):
            return largest
        self._noises[key] = max(largest, self._noises.get(key, 0.0))
        return self._noises[key]

    def _add(
        self,
        quantity: str,
        left: str,
        right: str,
        step: int,
        errors: Mapping[str, float],
        noise: Mapping[str, float] | None = None,
    ) -> None:
        """Updates a row with the errors of a step, by array."""
        if not errors:
            return
        noise = noise or {}
        if self._pooled and noise:
            noise = dict.fromkeys(
                errors, self._largest((quantity, left, right), noise)
            )
        base = agreement.tolerance(self._dtype, quantity, step)
        bounds = {
            name: max(
                base,
                agreement.explained(
                    self._dtype, quantity, noise.get(name, 0.0)
                ),
            )
            for name in errors
        }
        leaf = max(errors, key=lambda name: errors[name] / (bounds[name] or 1))
        place, tolerance = Place(step, leaf, errors[leaf]), bounds[leaf]
        key = (quantity, left, right)
        previous = self._rows.get(key)
        first = previous.first if previous else None
        if first is None and not place.error <= tolerance:
            first = place
        worst = place
        if previous and previous.worst.error / (previous.tolerance or 1) > (
            place.error / (tolerance or 1)
        ):
            worst, tolerance = previous.worst, previous.tolerance
        self._rows[key] = Row(
            quantity, left, right, worst, tolerance, first, self._label
        )


def _groups(states: Mapping[str, State], group: str) -> dict[str, Arrays]:
    return {name: getattr(state, group) for name, state in states.items()}
