"""A pair of models, and the faults that can be planted in it.

A fault is a name. The function that builds a pair takes the name and plants
the fault in one side. Comments on a line, or above it, mark the lines that
`diff` should name:

- `# fault: a, b`: the line has the faults `a` and `b`;
- `# lacks: a`: the faulty side leaves out what this line computes;
- `# consumer: a`: the line uses a value that has the fault without an
  operation, such as weights in a wrong order.
"""

import ast
import dataclasses
import functools
import inspect
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

KEY = jax.random.key(0)
RNGS = nnx.Rngs(0)
MARK = re.compile(r"# (?:fault|lacks|consumer): ([\w, ]+)")


@dataclasses.dataclass(frozen=True)
class Case:
    """Two functions and their arguments."""

    left: Callable[..., Any]
    right: Callable[..., Any]
    args: tuple[Any, ...]
    right_args: tuple[Any, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model that is written twice.

    Attributes:
        build: draws the parameters and inputs, and plants the named fault.
        faults: the names of the faults that it can plant.
        rewritten: whether the two sides are written differently, beyond the
            names and layouts of the libraries.
        leaves: the name of the weight that a fault is in, for faults that
            no line of source has.
    """

    build: Callable[[np.random.Generator, str], Case]
    faults: tuple[str, ...]
    rewritten: bool = True
    leaves: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the function that builds it."""
        return self.build.__name__


class Place(NamedTuple):
    """A marked line and the function that it is in."""

    file: str
    line: int
    function: str


def places(pair: Pair, fault: str) -> list[Place]:
    """Returns the lines that are marked with a fault."""
    file = inspect.getsourcefile(pair.build) or ""
    return list(_marks(file).get(fault, []))


@functools.cache
def _marks(file: str) -> dict[str, list[Place]]:
    text = pathlib.Path(file).read_text()
    spans = list(_functions(ast.parse(text), ""))
    found: dict[str, list[Place]] = {}
    lines = text.splitlines()
    for line, source in enumerate(lines, start=1):
        while lines[line - 1].strip().startswith("#"):
            line += 1
        for names in MARK.findall(source):
            inside = [f for first, last, f in spans if first <= line <= last]
            place = Place(file, line, inside[-1] if inside else "")
            for name in names.split(","):
                found.setdefault(name.strip(), []).append(place)
    return found


def _functions(node: ast.AST, prefix: str):
    """Yields the first line, last line and qualified name of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            last = child.end_lineno or child.lineno
            yield child.lineno, last, prefix + child.name
            yield from _functions(child, "")


def normal(rng: np.random.Generator, *shape: int) -> jax.Array:
    """Draws a float32 array from the standard normal distribution."""
    return jnp.asarray(rng.normal(size=shape), "float32")


def filled(rng: np.random.Generator, tree: Any) -> Any:
    """Replaces the floats of a pytree by random ones, so none are zero."""
    return jax.tree.map(
        lambda x: (
            normal(rng, *x.shape)
            if isinstance(x, jax.Array)
            and jnp.issubdtype(x.dtype, np.floating)
            else x
        ),
        tree,
    )


def given(x: Any) -> Callable[..., Any]:
    """Returns an initializer whose result is `x`."""
    return lambda *_: jnp.asarray(x)


def linear_of(layer, **options):
    """Returns an `nnx.Linear` with the weights of an `eqx.nn.Linear`."""
    options = {
        "kernel_init": given(layer.weight.T),
        "bias_init": given(layer.bias),
        **options,
    }
    return nnx.Linear(
        layer.in_features, layer.out_features, rngs=RNGS, **options
    )
