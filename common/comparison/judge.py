"""Judges what some backends did: the worst and the first difference a row."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common import agreement
from common.comparison.rows import QUANTITIES, Place, Row
from common.state import State

Arrays = Mapping[str, Any]


class Judge:
    """Collects a row for each quantity and pair, step by step."""

    def __init__(self, dtype: str, pairs: Any):
        self._dtype = dtype
        self._pairs = [tuple(pair) for pair in pairs]
        self._rows: dict[tuple[str, str, str], Row] = {}
        self._peaks: dict[tuple[str, str, str], float] = {}

    def rows(self) -> list[Row]:
        """Returns the rows in the order of proof, then by pair."""
        return [
            self._rows[quantity, left, right]
            for quantity in QUANTITIES
            for left, right in self._pairs
            if (quantity, left, right) in self._rows
        ]

    def values(
        self, quantity: str, step: int, arrays: Mapping[str, Arrays]
    ) -> None:
        """Judges arrays by name, each in its own magnitude."""
        for left, right in self._pairs:
            apart = agreement.relative_errors(arrays[left], arrays[right])
            self._add(quantity, left, right, step, apart)

    def losses(self, step: int, losses: Mapping[str, Any]) -> None:
        """Judges the losses of a step; what is not finite agrees with none."""
        for left, right in self._pairs:
            a, b = losses[left], losses[right]
            finite = np.isfinite(a) and np.isfinite(b)
            apart = {"": agreement.relative_error(a, b) if finite else np.inf}
            if step == 1:
                self._add("loss", left, right, step, apart)
            self._add("trajectory", left, right, step, apart)

    def handed_over(
        self, copies: Mapping[str, State], originals: Mapping[str, State]
    ) -> None:
        """Judges that both began alike, and that copying lost nothing."""
        for left, right in self._pairs:
            apart = agreement.relative_errors(
                originals[left].flat(), originals[right].flat()
            )
            for name in (left, right):
                lost = agreement.relative_errors(
                    copies[name].flat(), originals[name].flat()
                )
                apart |= {k: v for k, v in lost.items() if v > apart[k]}
            self._add("state", left, right, 0, apart)

    def first_step(
        self, before: Mapping[str, State], after: Mapping[str, State]
    ) -> None:
        """Judges what one step made of buffers, parameters and moments."""
        for left, right in self._pairs:
            a, b = after[left], after[right]
            for quantity, x, y in (
                ("buffers", a.buffers, b.buffers),
                ("update", a.params, b.params),
                ("update", a.opt, b.opt),
            ):
                apart = agreement.relative_errors(x, y)
                self._add(quantity, left, right, 1, apart)
            moved = {
                name: {
                    leaf
                    for leaf, x in after[name].buffers.items()
                    if not np.array_equal(x, before[name].buffers[leaf])
                }
                for name in (left, right)
            }
            # Training has to move every buffer. One that has converged may
            # stay, but then in both backends alike.
            fresh = int(before[left].step) == 0
            due = set(a.buffers) if fresh else moved[left] | moved[right]
            stale = [
                f"{name}.{leaf}"
                for name in (left, right)
                for leaf in sorted(due - moved[name])
            ]
            self._count("trained", left, right, 1, stale)

    def state(self, step: int, states: Mapping[str, State]) -> None:
        """Judges a whole State along the way.

        Moments are measured in the largest magnitude that they have had: a
        gradient falls as training succeeds, its rounding does not.
        """
        for left, right in self._pairs:
            a, b = states[left], states[right]
            for x, y in ((a.params, b.params), (a.buffers, b.buffers)):
                apart = agreement.relative_errors(x, y)
                self._add("parameters", left, right, step, apart)
            peaks = {}
            for name in a.opt.keys() & b.opt.keys():
                now = max(map(agreement.magnitude, (a.opt[name], b.opt[name])))
                key = (left, right, name)
                self._peaks[key] = max(now, self._peaks.get(key, 0.0))
                peaks[name] = self._peaks[key]
            apart = agreement.relative_errors(a.opt, b.opt, peaks)
            self._add("moments", left, right, step, apart)

    def kept(self, step: int, changed: Mapping[str, list[str]]) -> None:
        """Judges that inference changed nothing at all."""
        for left, right in self._pairs:
            wrong = [
                f"{n}.{leaf}" for n in (left, right) for leaf in changed[n]
            ]
            self._count("kept", left, right, step, wrong)

    def _count(
        self, quantity: str, left: str, right: str, step: int, wrong: list[str]
    ) -> None:
        """Judges that no array at all is wrong."""
        leaf = wrong[0] if wrong else ""
        place = Place(step, leaf, float(len(wrong)))
        first = place if wrong else None
        self._rows[quantity, left, right] = Row(
            quantity, left, right, place, 0.0, first
        )

    def _add(
        self,
        quantity: str,
        left: str,
        right: str,
        step: int,
        apart: Mapping[str, float],
    ) -> None:
        if not apart:
            return
        leaf = max(apart, key=lambda name: apart[name])
        place = Place(step, leaf, apart[leaf])
        bound = agreement.tolerance(self._dtype, quantity, step)
        key = (quantity, left, right)
        old = self._rows.get(key)
        first = old.first if old else None
        if first is None and not place.error <= bound:
            first = place
        worst = place
        if old and old.worst.error / (old.tolerance or 1) > (
            place.error / (bound or 1)
        ):
            worst, bound = old.worst, old.tolerance
        self._rows[key] = Row(quantity, left, right, worst, bound, first)
