"""One of the two models, as a compiled function of its arrays."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float64, UInt32

from common.agreement import EPS
from common.alignment.arrangement import without_numbers
from common.layouts import Role
from common.layouts.model import is_key
from common.native import NativeModel

ARRAY_VALUE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a model needs the values of an array to be known."""

COUNT = 2**20
"""The value of a counter after very many steps."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The result of one run.

    Attributes:
        outputs: the leaves of the outputs, flattened.
        gradients: of a random projection of the outputs, by array.
    """

    outputs: list[np.ndarray]
    gradients: dict[str, np.ndarray]

    @property
    def is_finite(self) -> bool:
        """Whether no output is a NaN or infinite."""
        return all(np.isfinite(x).all() for x in self.outputs)


class Side:
    """A model as a function of its floating parameters and buffers.

    Attributes:
        label: `"left"` or `"right"`.
        model: the model.
        given: its inputs.
        xs: its inputs, in float64.
        originals: the arrays that may have a counterpart, by dotted name.
        pinned: the floating arrays that are constants, because the user said
            so or because the model needs to know their values.
        needed: those of them whose values the model needs to know.
        others: the names of all other arrays.
        runs: the number of runs so far.
        eps: the machine epsilon of the narrowest dtype inside the model.
    """

    def __init__(
        self,
        label: str,
        model: NativeModel,
        xs: Any,
        constants: Iterable[str] = (),
    ):
        """Prepares a model; nothing is run.

        Args:
            label: `"left"` or `"right"`.
            model: the model.
            xs: its inputs: a pytree.
            constants: the names of arrays that are constants.
        """
        self.label, self.model = label, model
        self.given, self.xs = xs, to_float64(xs)
        arrays = model.arrays()
        roles = Role.PARAMETER, Role.BUFFER
        floats = {
            name: arrays[name]
            for name, info in model.infos.items()
            if info.role in roles
            and jnp.issubdtype(arrays[name].dtype, jnp.floating)
        }
        self.pinned = sorted(set(constants) & floats.keys())
        self.others = sorted(arrays.keys() - floats.keys())
        self.counters = {
            name: np.full(arrays[name].shape, COUNT, arrays[name].dtype)
            for name in self.others
            if model.infos[name].role is Role.BUFFER
            and jnp.issubdtype(arrays[name].dtype, jnp.integer)
            and np.all(np.asarray(arrays[name]) > 0)
        }
        self.originals: dict[str, np.ndarray] = {
            name: np.asarray(x)
            for name, x in floats.items()
            if name not in self.pinned
        }
        self.needed: list[str] = []
        self.runs = 0
        self.eps = EPS["float64"]
        self.shapes: list[tuple[int, ...]] = []
        self._compiled: Any = None

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays that may have a counterpart."""
        return {name: x.shape for name, x in self.originals.items()}

    @property
    def elements(self) -> int:
        """The number of elements of these arrays."""
        return sum(x.size for x in self.originals.values())

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of all other arrays, which stay as they are."""
        return tuple(sorted({*self.others, *self.pinned}))

    def pin(self, names: Iterable[str]) -> None:
        """Treats arrays as constants whose values the model needs."""
        for name in names:
            del self.originals[name]
            self.pinned.append(name)
            self.needed.append(name)

    def outputs(
        self,
        arrays: Mapping[str, Any],
        xs: Any,
        model: NativeModel | None = None,
    ) -> list[Any]:
        """Calls the model and returns the leaves of its outputs."""
        model = model or self.model
        outputs, _ = model.apply({**self.counters, **arrays}, xs)
        return [
            jnp.asarray(x)
            for x in jax.tree.leaves(outputs)
            if hasattr(x, "dtype") and not is_key(x)
        ]

    def compile(self) -> None:
        """Traces and compiles the model.

        Raises:
            TypeError: if the model cannot be called on the inputs.
        """
        arrays = {
            name: jax.ShapeDtypeStruct(x.shape, np.float64)
            for name, x in self.originals.items()
        }
        seed = jax.ShapeDtypeStruct((), np.uint32)
        with precise():
            traced = jax.jit(
                jax.value_and_grad(self._projection, has_aux=True),
                donate_argnums=0,
            ).trace(arrays, self.xs, seed)
            self.eps = narrowest_eps(traced.jaxpr)
            self._compiled = traced.lower().compile()

    def _projection(self, arrays, xs, seed):
        leaves = self.outputs(arrays, xs)
        self.shapes = [x.shape for x in leaves]
        leaves = [jnp.ravel(x) for x in leaves]
        total = jnp.zeros((), jnp.float64)
        for i, x in enumerate(leaves):
            if jnp.issubdtype(x.dtype, jnp.inexact):
                weights = projection(seed, i, x.size)
                total += jnp.vdot(weights, jnp.real(x).astype(jnp.float64))
        return total, leaves

    def run(self, arrays: dict[str, np.ndarray], seed: int = 0) -> Run:
        """Runs the model.

        Args:
            arrays: all arrays that may have a counterpart. The dictionary is
                emptied, so that no array is held twice.
            seed: of the random projection of the outputs.
        """
        self.runs += 1
        with precise():
            given = {
                name: np.asarray(arrays.pop(name), np.float64)
                for name in self.originals
            }
            (_, outputs), gradients = self._compiled(
                given, self.xs, np.uint32(seed)
            )
            del given
        return Run(
            [np.asarray(x) for x in outputs],
            {name: np.asarray(x) for name, x in gradients.items()},
        )


def projection(
    seed: UInt32[Any, ""], number: int, size: int
) -> Float64[jax.Array, " n"]:
    """Returns weights between -1 and 1 for one leaf of the outputs.

    They are a hash of the position, which compiles in a fraction of the time
    that `jax.random.normal` takes.

    Args:
        seed: another seed gives other weights.
        number: the number of the leaf.
        size: the number of its elements.
    """
    start = np.uint32((number * 0xC2B2AE35 + 0x27D4EB2F) % 2**32)
    x = lax.iota(np.uint32, size) * np.uint32(0x9E3779B9)
    x = x + (seed * np.uint32(0x85EBCA6B) + start)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x = x ^ (x >> np.uint32(16))
    return x.astype(jnp.float64) * 2.0**-31 - 1


@contextlib.contextmanager
def precise() -> Iterator[None]:
    """A context in which JAX computes in float64."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def to_float64(tree: Any) -> Any:
    """Casts the floating arrays of a pytree to float64."""

    def cast(x):
        if isinstance(x, jax.Array | np.ndarray | np.generic) and (
            jnp.issubdtype(x.dtype, jnp.floating)
        ):
            return np.asarray(x, np.float64)
        return x

    return jax.tree.map(cast, tree)


def narrowest_eps(jaxpr: Any) -> float:
    """Returns the largest machine epsilon of the dtypes in a program."""
    eps = EPS["float64"]
    seen = [jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr]
    while seen:
        current = seen.pop()
        for equation in current.eqns:
            for variable in (*equation.invars, *equation.outvars):
                dtype = getattr(variable.aval, "dtype", None)
                if (
                    dtype is not None
                    and jnp.issubdtype(dtype, jnp.floating)
                    and getattr(variable.aval, "size", 1) > 1
                ):
                    eps = max(eps, float(jnp.finfo(dtype).eps))
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=_is_jaxpr
            ):
                if _is_jaxpr(inner):
                    seen.append(getattr(inner, "jaxpr", inner))
    return eps


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns")


def find_needed(side: Side) -> list[str]:
    """Returns the arrays whose values the model needs to know.

    A model that converts an array with NumPy, or decides by its values, cannot
    be traced with that array as an argument. Arrays that differ in numbers
    of their names only are treated alike.

    Raises:
        Exception: what the call raises for another reason.
    """
    names = list(side.originals)
    needed: list[str] = []
    while not _can_trace(side, set(names) - set(needed)):
        candidates = [name for name in names if name not in needed]
        while len(candidates) > 1:
            half = candidates[: len(candidates) // 2]
            rest = candidates[len(half) :]
            candidates = rest if _can_trace(side, set(half)) else half
        if not candidates or _can_trace(side, set(candidates)):
            raise RuntimeError("unreachable: no single array is to blame")
        stem = without_numbers(candidates[0])
        needed += [n for n in names if without_numbers(n) == stem]
    return needed


def _can_trace(side: Side, names: set[str]) -> bool:
    arrays = {
        name: jax.ShapeDtypeStruct(x.shape, np.float64)
        for name, x in side.originals.items()
        if name in names
    }
    try:
        with precise():
            jax.eval_shape(side.outputs, arrays, side.xs)
    except ARRAY_VALUE_ERRORS:
        if not names:
            raise
        return False
    return True
