"""What a pair of models and a planted fault are.

A fault is a name. The builder of its pair gets it and plants it in one side;
comments on a line, or above it, say which lines count as named:

- `# fault: a, b`: the lines where the faults `a` and `b` are;
- `# lacks: a`: the other side's line for what the faulty side leaves out;
- `# consumer: a`: the nearest consumer, for a fault without an operation of
  its own, such as weights in a wrong order.
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
    """Two functions and what they are called with."""

    left: Callable[..., Any]
    right: Callable[..., Any]
    args: tuple[Any, ...]
    right_args: tuple[Any, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model that was written twice.

    Attributes:
        build: draws the parameters and inputs, and plants the named fault.
        faults: what it can plant.
        rewritten: whether the two sides are written differently, beyond the
            names and layouts of the libraries.
        leaves: for faults in a weight itself, the name in its path, which
            counts as named too.
    """

    build: Callable[[np.random.Generator, str], Case]
    faults: tuple[str, ...]
    rewritten: bool = True
    leaves: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its builder."""
        return self.build.__name__


class Place(NamedTuple):
    """A marked line, and the function that it is in."""

    file: str
    line: int
    function: str


def places(pair: Pair, fault: str) -> list[Place]:
    """Returns the lines that are marked with a fault."""
    file = inspect.getsourcefile(pair.build) or ""
    return [it for it in _marks(file).get(fault, [])]


@functools.cache
def _marks(file: str) -> dict[str, list[Place]]:
    text = pathlib.Path(file).read_text()
    spans = list(_functions(ast.parse(text), ""))
    found: dict[str, list[Place]] = {}
    lines = text.splitlines()
    for line, it in enumerate(lines, start=1):
        while lines[line - 1].strip().startswith("#"):
            line += 1
        for names in MARK.findall(it):
            inside = [f for first, last, f in spans if first <= line <= last]
            place = Place(file, line, inside[-1] if inside else "")
            for name in names.split(","):
                found.setdefault(name.strip(), []).append(place)
    return found


def _functions(node: ast.AST, prefix: str):
    """Yields the first line, the last and the qualified name of each."""
    for it in ast.iter_child_nodes(node):
        if isinstance(it, ast.ClassDef):
            yield from _functions(it, f"{prefix}{it.name}.")
        elif isinstance(it, ast.FunctionDef):
            yield it.lineno, it.end_lineno or it.lineno, prefix + it.name
            yield from _functions(it, "")


def normal(rng: np.random.Generator, *shape: int) -> jax.Array:
    """Draws an array."""
    return jnp.asarray(rng.normal(size=shape), "float32")


def filled(rng: np.random.Generator, tree: Any) -> Any:
    """Draws every float of a pytree anew: nothing agrees by being zero."""
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
    """Returns an initializer that gives x."""
    return lambda *_: jnp.asarray(x)


def linear_of(layer, **options):
    """Returns nnx's linear layer with the weights of Equinox's."""
    options = {
        "kernel_init": given(layer.weight.T),
        "bias_init": given(layer.bias),
        **options,
    }
    return nnx.Linear(
        layer.in_features, layer.out_features, rngs=RNGS, **options
    )
