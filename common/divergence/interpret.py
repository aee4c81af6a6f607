"""Runs a jaxpr equation by equation and keeps a record of every value.

Calls (jit, remat, custom derivatives) are inlined, scans and whiles unrolled,
and of a cond the taken branch is followed, so that the record is a plain list
of primitive operations.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from common.divergence.layout import move
from common.divergence.modules import path_of
from common.divergence.rounding import ROUNDED, is_rounding
from common.divergence.sketch import Sketch, largest, sketch
from common.divergence.sources import Frame, frames

# What a call's parameters call its body.
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
INLINED = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "checkpoint",
    "remat",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "custom_lin",
}
# What rounds nothing, but for a cast to a narrower dtype.
EXACT = {
    "abs",
    "broadcast_in_dim",
    "concatenate",
    "constant",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "gather",
    "input",
    "max",
    "min",
    "neg",
    "pad",
    "reduce_max",
    "reduce_min",
    "reshape",
    "rev",
    "scan slice",
    "scan stack",
    "select_n",
    "slice",
    "sort",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}
CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "debug_print"}


@dataclasses.dataclass(slots=True)
class Node:
    """A value that was computed, and the equation that computed it.

    Attributes:
        number: its place in the record.
        primitive: the operation, or `"input"` or `"constant"`.
        operands: the numbers of the values it was computed from.
        literals: the scalars among the equation's operands.
        params: the equation's parameters.
        shape: of the value.
        dtype: of the value.
        sketch: its fingerprint.
        value: itself, as long as the budget lasts.
        frames: the lines behind it, innermost first.
        scope: the name stack.
        iterations: the loops it is in, outermost first.
        eps: of the narrowest floating dtype that rounded on the way to it.
        label: the path of an input.
    """

    number: int
    primitive: str
    operands: tuple[int, ...]
    literals: tuple[Any, ...]
    params: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    sketch: Sketch
    value: Any
    frames: tuple[Frame, ...]
    scope: str
    iterations: tuple[int, ...]
    eps: float
    label: str = ""

    @property
    def module(self) -> str:
        """The path of the module that computed it, where it is known."""
        return path_of(self.scope)


@dataclasses.dataclass
class Record:
    """All that a function computed on some inputs.

    Attributes:
        nodes: every value, in the order of computing.
        outputs: the numbers of the outputs.
        notes: what was not compared.
    """

    nodes: list[Node]
    outputs: list[int]
    notes: list[str]


def _eps(x: Any) -> float:
    """The distance from 1 to the next float of an array's dtype."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return 0.0
    return float(jnp.finfo(x.dtype).eps)


class _Value:
    """A value on its way through the interpreter."""

    __slots__ = ("array", "number")

    def __init__(self, array: Any, number: int | None):
        self.array = array
        self.number = number  # None: a literal


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a jaxpr is called from."""

    frames: tuple[Frame, ...] = ()
    scope: str = ""
    iterations: tuple[int, ...] = ()


def interpret(
    closed: Any, inputs: Sequence[Any], labels: Sequence[str], budget: int
) -> Record:
    """Runs a closed jaxpr.

    Args:
        closed: the jaxpr.
        inputs: its arguments.
        labels: their paths.
        budget: bytes of values to keep besides their fingerprints.
    """
    return _Interpreter(budget).run(closed, inputs, labels)


class _Interpreter:
    def __init__(self, budget: int):
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.budget = budget

    def run(self, closed, inputs, labels) -> Record:
        values = [
            self._leaf("input", x, label)
            for x, label in zip(inputs, labels, strict=True)
        ]
        outputs = self._jaxpr(closed.jaxpr, closed.consts, values, _Place())
        numbers = []
        for it in outputs:
            if it.number is None:  # a literal is returned
                it = self._leaf("constant", it.array, "")
            numbers.append(it.number)
        return Record(self.nodes, numbers, self.notes)

    def _leaf(self, primitive: str, x: Any, label: str) -> _Value:
        return self._add(primitive, x, (), {}, _Place(), label)

    def _add(
        self,
        primitive: str,
        x: Any,
        operands: Sequence[_Value],
        params: dict[str, Any],
        place: _Place,
        label: str = "",
    ) -> _Value:
        numbers = tuple(it.number for it in operands if it.number is not None)
        eps = max((self.nodes[i].eps for i in numbers), default=0.0)
        narrower = any(_eps(it.array) < _eps(x) for it in operands)
        if primitive not in EXACT or narrower:
            eps = max(eps, _eps(x))
        found, kept = sketch(x), x
        if found.kind == "float" and self._is_rounding(
            primitive, found, operands, eps
        ):
            kept = np.zeros(x.shape, x.dtype)
            found = sketch(kept)
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
            literals=tuple(it.array for it in operands if it.number is None),
            params=params,
            shape=tuple(x.shape),
            dtype=str(x.dtype),
            sketch=found,
            value=kept,
            frames=place.frames,
            scope=place.scope,
            iterations=place.iterations,
            eps=eps,
            label=label,
        )
        self.nodes.append(node)
        return _Value(x, node.number)

    def _is_rounding(
        self,
        primitive: str,
        found: Sketch,
        operands: Sequence[_Value],
        eps: float,
    ) -> bool:
        if found.nan or found.inf or primitive not in ROUNDED:
            return False
        sketches = [
            sketch(it.array) if it.number is None else self._sketch(it.number)
            for it in operands
        ]
        floats = [it for it in sketches if it.kind == "float"]
        sizes = math.prod(it.size for it in floats) / max(1, found.size)
        count = sizes ** (1 / max(1, len(floats)))
        terms = [largest(it) for it in floats]
        return is_rounding(primitive, largest(found), terms, count, eps)

    def _sketch(self, number: int) -> Sketch:
        return self.nodes[number].sketch

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
            aval: Any = atom.aval
            return _Value(np.asarray(atom.val, aval.dtype), None)

        for var, const in zip(jaxpr.constvars, consts, strict=True):
            known = isinstance(const, _Value)
            env[var] = const if known else self._leaf("constant", const, "")
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
            frames(info.traceback) + outer.frames,
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
            body = next(eqn.params[it] for it in BODIES if it in eqn.params)
            return self._closed(body, operands, place)
        moved = move(name, eqn.params, [it.array for it in operands])
        if moved is not None:
            return [self._add(name, moved, operands, eqn.params, place)]
        with eqn.ctx.manager:
            out = eqn.primitive.bind(
                *(it.array for it in operands),
                **eqn.primitive.get_bind_params(eqn.params),
            )
        if not eqn.primitive.multiple_results:
            out = [out]
        return [self._add(name, x, operands, eqn.params, place) for x in out]

    def _closed(self, body, operands, place: _Place) -> list[_Value]:
        """Inlines a body, which may be open or closed."""
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
        for i in reversed(order) if params["reverse"] else order:
            inner = dataclasses.replace(
                place, iterations=(*place.iterations, i)
            )
            slices = [
                self._add("scan slice", it.array[i], [it], {}, inner)
                for it in xs
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
                jnp.stack([it.array for it in ys]),
                ys,
                {},
                place,
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
            (go,) = self._closed(
                params["cond_jaxpr"], [*cond_consts, *carry], inner
            )
            if not bool(go.array):
                return carry
            carry = self._closed(
                params["body_jaxpr"], [*body_consts, *carry], inner
            )
            i += 1
