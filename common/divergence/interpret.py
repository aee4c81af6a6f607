"""Runs a jaxpr equation by equation and keeps a record of every value.

Calls (jit, remat, custom derivatives) are inlined, scans and while loops are
unrolled, and only the branch that a cond takes is run. The record is a flat
list of primitive operations.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from common.agreement import EPS
from common.divergence.data_movement import move_data
from common.divergence.fingerprint import Fingerprint, take_fingerprint
from common.divergence.primitives import BODIES, CALLBACKS, EXACT, INLINED
from common.divergence.record import Node, Record
from common.divergence.rounding import ROUNDED, is_rounding
from common.divergence.sources import Frame, user_frames
from common.divergence.widening import (
    bind,
    eps_of,
    evaluate,
    is_narrow,
    read_literal,
    widen,
)


class _Value:
    """An array and its number in the record, `None` for a literal."""

    __slots__ = ("array", "number")

    def __init__(self, array: Any, number: int | None):
        self.array = array
        self.number = number


@dataclasses.dataclass(frozen=True)
class _Place:
    """The source lines, scope and loop iterations around a jaxpr."""

    frames: tuple[Frame, ...] = ()
    scope: str = ""
    iterations: tuple[int, ...] = ()


def interpret(
    closed: Any,
    inputs: Sequence[Any],
    labels: Sequence[str],
    budget: int,
    wide: bool = False,
) -> Record:
    """Runs a closed jaxpr.

    Args:
        closed: the jaxpr.
        inputs: the arguments.
        labels: the paths of the arguments.
        budget: how many bytes of values to keep besides the fingerprints.
        wide: whether to evaluate narrow floats in float64.
    """
    return _Interpreter(budget, wide).run(closed, inputs, labels)


class _Interpreter:
    def __init__(self, budget: int, wide: bool):
        self.wide = wide
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.budget = budget

    def run(self, closed, inputs, labels) -> Record:
        values = [
            self._leaf("input", x, label, str(var.aval.dtype))
            for x, label, var in zip(
                inputs, labels, closed.jaxpr.invars, strict=True
            )
        ]
        outputs = self._jaxpr(closed.jaxpr, closed.consts, values, _Place())
        numbers = []
        for output in outputs:
            if output.number is None:  # a literal is returned
                output = self._leaf("constant", output.array, "")
            numbers.append(output.number)
        return Record(self.nodes, numbers, self.notes)

    def _leaf(
        self, primitive: str, x: Any, label: str, dtype: str = ""
    ) -> _Value:
        # An array that the program was traced with has been rounded before.
        narrow = self.wide and primitive == "constant" and x.ndim
        return self._add(
            primitive,
            widen(x) if self.wide else x,
            (),
            {},
            _Place(),
            label,
            dtype or str(x.dtype),
            eps_of(x.dtype) if narrow and is_narrow(x.dtype) else 0.0,
        )

    def _add(
        self,
        primitive: str,
        x: Any,
        operands: Sequence[_Value],
        params: dict[str, Any],
        place: _Place,
        label: str = "",
        dtype: str = "",
        rounding: float = 0.0,
    ) -> _Value:
        numbers = tuple(
            operand.number
            for operand in operands
            if operand.number is not None
        )
        eps = max([rounding, *(self.nodes[i].eps for i in numbers)])
        own = eps_of(x.dtype)
        narrower = any(eps_of(one.array.dtype) < own for one in operands)
        if primitive not in EXACT or narrower:
            eps = max(eps, own)
        fingerprint, kept = take_fingerprint(x), x
        if fingerprint.kind == "float" and self._is_rounding(
            primitive,
            fingerprint,
            operands,
            min(eps, EPS["float32"]) if self.wide else eps,
        ):
            kept = np.zeros(x.shape, x.dtype)
            fingerprint = take_fingerprint(kept)
        nbytes = (
            0 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.nbytes
        )
        kept = kept if nbytes <= self.budget else None
        if kept is not None:
            self.budget -= nbytes
        node = Node(
            number=len(self.nodes),
            primitive=primitive,
            operands=numbers,
            literals=tuple(
                operand.array for operand in operands if operand.number is None
            ),
            params=params,
            shape=tuple(x.shape),
            dtype=dtype or str(x.dtype),
            fingerprint=fingerprint,
            value=kept,
            frames=place.frames,
            scope=place.scope,
            iterations=place.iterations,
            eps=eps,
            label=label,
            rounding=rounding,
        )
        self.nodes.append(node)
        return _Value(x, node.number)

    def _is_rounding(
        self,
        primitive: str,
        fingerprint: Fingerprint,
        operands: Sequence[_Value],
        eps: float,
    ) -> bool:
        if primitive not in ROUNDED or fingerprint.nan or fingerprint.inf:
            return False
        fingerprints = map(self._fingerprint, operands)
        floats = [other for other in fingerprints if other.kind == "float"]
        sizes = math.prod(other.size for other in floats)
        sizes /= max(1, fingerprint.size)
        count = sizes ** (1 / max(1, len(floats)))
        terms = [other.magnitude for other in floats]
        return is_rounding(primitive, fingerprint.magnitude, terms, count, eps)

    def _fingerprint(self, value: _Value) -> Fingerprint:
        if value.number is None:
            return take_fingerprint(value.array)
        return self.nodes[value.number].fingerprint

    def _jaxpr(self, jaxpr, consts, args, place: _Place) -> list[_Value]:
        env: dict[Any, _Value] = {}
        last: dict[Any, int] = {}
        for i, eqn in enumerate(jaxpr.eqns):
            for atom in eqn.invars:
                if not isinstance(atom, core.Literal):
                    last[atom] = i
        keep = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}

        def read(atom: Any) -> _Value:
            if not isinstance(atom, core.Literal):
                return env[atom]
            return _Value(read_literal(atom, self.wide), None)

        for var, const in zip(jaxpr.constvars, consts, strict=True):
            if not isinstance(const, _Value):
                const = self._leaf("constant", const, "")
            env[var] = const
        for var, value in zip(jaxpr.invars, args, strict=True):
            env[var] = value
        for i, eqn in enumerate(jaxpr.eqns):
            operands = [read(atom) for atom in eqn.invars]
            for var, value in zip(
                eqn.outvars, self._equation(eqn, operands, place), strict=True
            ):
                env[var] = value
            for atom in set(
                a for a in eqn.invars if not isinstance(a, core.Literal)
            ):
                if last[atom] == i and atom not in keep:
                    env.pop(atom, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn, operands, outer: _Place) -> list[_Value]:
        info = eqn.source_info
        place = _Place(
            user_frames(info.traceback) + outer.frames,
            "/".join(filter(None, (outer.scope, str(info.name_stack)))),
            outer.iterations,
        )
        name = eqn.primitive.name
        if name in CALLBACKS:
            self.notes.append(
                f"{name} at {place.frames[0] if place.frames else '?'} is not "
                "compared"
            )
            if name != "pure_callback" and not eqn.outvars:
                return []
        if name == "scan":
            return self._scan(eqn.params, operands, place)
        if name == "while":
            return self._while(eqn.params, operands, place)
        if name == "cond":
            index, *operands = operands
            branch = eqn.params["branches"][int(index.array)]
            return self._closed(branch, operands, place)
        if name in INLINED:
            body = next(eqn.params[key] for key in BODIES if key in eqn.params)
            return self._closed(body, operands, place)
        arrays = [operand.array for operand in operands]
        moved = move_data(name, eqn.params, arrays)
        rounded = 0.0
        if moved is not None:
            out = [moved]
        elif self.wide:
            out, rounded = evaluate(eqn, arrays)
        else:
            out = bind(eqn, arrays, eqn.params)
        return [
            self._add(
                name,
                x,
                operands,
                eqn.params,
                place,
                dtype=str(var.aval.dtype),
                rounding=rounded,
            )
            for x, var in zip(out, eqn.outvars, strict=True)
        ]

    def _closed(self, body, operands, place: _Place) -> list[_Value]:
        """Runs the body of a call, which may be an open or a closed jaxpr."""
        if isinstance(body, core.ClosedJaxpr):
            return self._jaxpr(body.jaxpr, body.consts, operands, place)
        return self._jaxpr(body, (), operands, place)

    def _scan(self, params, operands, place: _Place) -> list[_Value]:
        consts = operands[: params["num_consts"]]
        carry = operands[params["num_consts"] :][: params["num_carry"]]
        xs = operands[params["num_consts"] + params["num_carry"] :]
        length = params["length"]
        order = range(length)
        columns: list[list[_Value]] = []
        dtypes = [
            "" if x.number is None else self.nodes[x.number].dtype for x in xs
        ]
        for i in reversed(order) if params["reverse"] else order:
            inner = dataclasses.replace(
                place, iterations=(*place.iterations, i)
            )
            slices = [
                self._add("scan slice", x.array[i], [x], {}, inner, "", dtype)
                for x, dtype in zip(xs, dtypes, strict=True)
            ]
            out = self._closed(
                params["jaxpr"], [*consts, *carry, *slices], inner
            )
            carry = out[: params["num_carry"]]
            columns.append(out[params["num_carry"] :])
        if params["reverse"]:
            columns.reverse()
        stacked = [
            self._add(
                "scan stack",
                jnp.stack([y.array for y in ys]),
                ys,
                {},
                place,
                "",
                self.nodes[ys[0].number].dtype if ys[0].number else "",
            )
            for ys in zip(*columns, strict=True)
        ]
        return [*carry, *stacked]

    def _while(self, params, operands, place: _Place) -> list[_Value]:
        n, m = params["cond_nconsts"], params["body_nconsts"]
        cond_consts, body_consts = operands[:n], operands[n : n + m]
        carry = operands[n + m :]
        i = 0
        while True:
            inner = dataclasses.replace(
                place, iterations=(*place.iterations, i)
            )
            (proceed,) = self._closed(
                params["cond_jaxpr"], [*cond_consts, *carry], inner
            )
            if not bool(proceed.array):
                return carry
            carry = self._closed(
                params["body_jaxpr"], [*body_consts, *carry], inner
            )
            i += 1
