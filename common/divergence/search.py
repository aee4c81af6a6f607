"""Finds the two source lines where two JAX programs diverge."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.divergence.interpret import Node, Record, interpret
from common.divergence.matching import Matching, arrangement, bound, same
from common.divergence.origins import Origin, Walk, pair
from common.divergence.sketch import distance, magnitudes, numbers
from common.environment import flag
from common.errors import choose

SIDES = ("left", "right")
DTYPES = (None, "float64", "float32", "bfloat16")
KEPT = 2**28
"""Bytes of values that each side keeps besides their fingerprints."""
FAR = 0.1
"""Two values further apart than this have nothing to do with each other."""


@dataclasses.dataclass(frozen=True)
class Output:
    """One leaf of what both functions return.

    Attributes:
        path: where it is in the output.
        left: its value on the left.
        right: its value on the right.
        ok: whether they are equal, up to the order of axes if their shapes
            differ.
        off: the largest difference over the largest magnitude.
    """

    path: str
    left: Node
    right: Node
    ok: bool
    off: float


class Near(NamedTuple):
    """A value of the left, and the likest of the right.

    Attributes:
        left: the value.
        right: the likest one.
        off: the largest difference over the largest magnitude.
        matched: whether they are one value.
    """

    left: Node
    right: Node
    off: float
    matched: bool


@dataclasses.dataclass(frozen=True, repr=False)
class Diff:
    """What two programs have in common, and where they first part.

    Attributes:
        outputs: every leaf of the outputs.
        origins: every earliest difference, the likeliest first.
        matching: of the two records.
        seconds: what it took.
    """

    outputs: list[Output]
    origins: list[Origin]
    matching: Matching
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether all outputs are equal."""
        return all(it.ok for it in self.outputs)

    @property
    def records(self) -> tuple[Record, Record]:
        """What each side computed."""
        return self.matching.records

    @property
    def ceilings(self) -> tuple[Node | None, Node | None]:
        """The first value in the narrowest dtype on each side's way.

        `None` where no value is narrower than the inputs. Two programs agree
        no further than the narrower of the two.
        """
        left, right = (_ceiling(record) for record in self.records)
        return left, right

    def growth(self) -> list[Near]:
        """Returns the likest value of the right for each of the left.

        In the order of the left program. Those without one are left out.
        """
        left, right = (record.nodes for record in self.records)
        found = []
        for node in left:
            if node.sketch.kind != "float" or node.sketch.constant:
                continue
            partners = self.matching.partners(0, node.number)
            if partners:
                off, best = min(
                    (distance(node.sketch, right[it].sketch), it)
                    for it in partners
                )
            else:
                nearest = self.matching.nearest(0, node.number)
                if nearest is None or nearest[1] > FAR:
                    continue
                best, off = nearest
            found.append(Near(node, right[best], off, bool(partners)))
        return found

    def __repr__(self):
        return f"Diff(ok={self.ok}, origins={len(self.origins)})"

    def __str__(self):
        from common.divergence.text import render

        return render(self)


def find_divergence(
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    arguments: tuple[Sequence[Any], Sequence[Any]],
    *,
    dtype: str | None,
    kept: int = KEPT,
    name_modules: Callable[[Any], Any] = lambda tree: tree,
) -> Diff:
    """Finds where two JAX functions diverge; `common.diff` calls it.

    Args:
        functions: the left and the right function.
        arguments: what each is called with.
        dtype: as for `common.diff`.
        kept: as for `common.diff`.
        name_modules: replaces the modules in a pytree by copies that record
            their path in JAX's name stack.

    Raises:
        TypeError: if a function cannot be traced.
        ValueError: if the outputs have different structures.
    """
    start = time.monotonic()
    if dtype not in DTYPES:
        raise choose("dtype", dtype, DTYPES)
    with jax.enable_x64(dtype == "float64" or flag("jax_enable_x64")):
        traced = [
            _trace(side, function, args, dtype, name_modules)
            for side, function, args in zip(
                SIDES, functions, arguments, strict=True
            )
        ]
        (_, paths), (tree, _) = ((it.tree, it.paths) for it in traced)
        if traced[0].tree != tree:
            raise ValueError(
                f"outputs: got the structure {traced[0].tree} on the left and "
                f"{tree} on the right, expected the same. Return the same "
                "containers from both, or wrap one of them: a dict of arrays."
            )
        records = [
            interpret(it.jaxpr, it.inputs, it.labels, kept) for it in traced
        ]
        return compare(records[0], records[1], paths, start)


def compare(
    left: Record, right: Record, paths: Sequence[str], start: float
) -> Diff:
    """Compares what two programs computed."""
    matching = Matching(left, right)
    outputs = [
        _output(path, left.nodes[a], right.nodes[b])
        for path, a, b in zip(paths, left.outputs, right.outputs, strict=True)
    ]
    apart = [it for it in outputs if not it.ok]
    walks = [
        Walk(matching, i, [getattr(it, side).number for it in apart])
        for i, side in enumerate(SIDES)
    ]
    found = [walk.origins() for walk in walks]
    origins = _first_nan(left, right) + pair(walks, *found)
    for it in apart:
        if walks[0].matched(it.left.number) and walks[1].matched(
            it.right.number
        ):
            reason = f"output{it.path} is another value of the same program"
            origins.append(Origin(it.left, it.right, reason))
    origins = [_with_inputs(it, walks) for it in origins]
    return Diff(outputs, origins, matching, time.monotonic() - start)


def _with_inputs(origin: Origin, walks: Sequence[Walk]) -> Origin:
    """Adds the inputs of an origin that only its side has."""
    strange = [
        f"only the {side} has {label}"
        for side, walk in zip(SIDES, walks, strict=True)
        for label in walk.strange(getattr(origin, side))
    ]
    if not strange:
        return origin
    reason = "; ".join(filter(None, (origin.reason, *strange)))
    return dataclasses.replace(origin, reason=reason)


def _first_nan(left: Record, right: Record) -> list[Origin]:
    """The first NaN, if only one side ends in one."""
    firsts = []
    for record in (left, right):
        ends = any(record.nodes[it].sketch.nan for it in record.outputs)
        made = (
            node
            for node in record.nodes
            if node.sketch.nan
            and not any(record.nodes[it].sketch.nan for it in node.operands)
        )
        firsts.append(next(made, None) if ends else None)
    if (firsts[0] is None) == (firsts[1] is None):
        return []
    return [Origin(firsts[0], firsts[1], "the first NaN")]


def _ceiling(record: Record) -> Node | None:
    narrowest = max(
        (record.nodes[it].eps for it in record.outputs), default=0.0
    )
    floats = {it.dtype for it in record.nodes if it.sketch.kind == "float"}
    widest = min((float(jnp.finfo(it).eps) for it in floats), default=0.0)
    if narrowest <= widest:
        return None
    return next(it for it in record.nodes if it.eps == narrowest)


def _output(path: str, left: Node, right: Node) -> Output:
    tolerance = bound(left, right)
    off = distance(left.sketch, right.sketch)
    ok = off <= tolerance
    if left.value is not None and right.value is not None:
        (_, a), (_, b) = numbers(left.value), numbers(right.value)
        if a.shape == b.shape:
            ok = same(a, b, tolerance)
            off = max(off, _off(a, b))
        elif ok:
            ok = arrangement(a, b, tolerance) is not None
    return Output(path, left, right, ok, off)


def _off(a: np.ndarray, b: np.ndarray) -> float:
    if a.dtype.kind in "biu":
        return 0.0 if np.array_equal(a, b) else np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    scale = magnitudes(b)
    off = np.abs(a - b) / np.where(scale, scale, 1)
    return float(np.max(off, initial=0.0))


# --- tracing ----------------------------------------------------------------


@dataclasses.dataclass
class _Traced:
    jaxpr: Any
    inputs: list[Any]
    labels: list[str]
    tree: Any
    paths: list[str]


def _trace(
    side: str,
    function: Any,
    args: Sequence[Any],
    dtype: str | None,
    name_modules: Callable[[Any], Any],
) -> _Traced:
    module = function if _is_module(function) else None
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        name_modules((module, tuple(args)))
    )
    arrays = [_is_array(x) for _, x in leaves]
    inputs = [
        _cast(x, dtype)
        for (_, x), it in zip(leaves, arrays, strict=True)
        if it
    ]
    labels = [
        _label(path)
        for (path, _), it in zip(leaves, arrays, strict=True)
        if it
    ]
    shapes: list[Any] = []

    def flat(*inputs):
        fill = iter(inputs)
        module, args = jax.tree.unflatten(
            treedef,
            [
                next(fill) if it else x
                for (_, x), it in zip(leaves, arrays, strict=True)
            ],
        )
        out = (function if module is None else module)(*args)
        found, tree = jax.tree_util.tree_flatten_with_path(out)
        shapes.append((tree, [jax.tree_util.keystr(p) for p, _ in found]))
        return [x for _, x in found]

    name = getattr(function, "__name__", type(function).__name__)
    try:
        jaxpr = jax.make_jaxpr(flat)(*inputs)
    except Exception as error:
        raise TypeError(
            f"{side} function {name!r}: got {type(error).__name__} while "
            f"tracing ({_first_line(error)}), expected a function of arrays "
            "that `jax.jit` takes. Check the inputs' shapes "
            f"({', '.join(map(_described, inputs))}), or pass `right_args`."
        ) from error
    tree, paths = shapes[-1]
    return _Traced(jaxpr, inputs, labels, tree, paths)


def _is_module(function: Any) -> bool:
    """Whether a callable is a pytree of arrays, such as a module."""
    return not jax.tree_util.all_leaves([function])


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def _cast(x: Any, dtype: str | None) -> Any:
    x = jnp.asarray(x)
    if dtype is None or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(dtype)


def _label(path: Any) -> str:
    root, *rest = path
    where = jax.tree_util.keystr(tuple(rest))
    return f"module{where}" if root.idx == 0 else f"args{where}"


def _described(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
