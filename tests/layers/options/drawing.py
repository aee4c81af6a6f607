"""The arrays of a comparison, and how it is run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.layouts import Role
from common.registry import find_library, library_of

Comparison = Callable[["Draw"], tuple[Any, Any]]


class Draw:
    """Hands out the arrays of a comparison, in the order of the requests."""

    def __init__(self, arrays: Any = None):
        """Starts with the first array.

        Args:
            arrays: what to hand out. Zeros if `None`, to find the shapes.
        """
        self.arrays = arrays
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, *shape: int) -> Any:
        """Returns the next array."""
        self.shapes.append(shape)
        if self.arrays is None:
            return jnp.zeros(shape)
        return self.arrays[len(self.shapes) - 1]

    def fill(self, native: Any) -> tuple[Any, dict[str, Any]]:
        """Puts the next arrays into the parameters of a layer.

        Its buffers keep their values, in the dtype of the arrays.

        Returns:
            The layer, and its parameters by canonical name.
        """
        layouts = find_library(library_of(native)).layouts(native)
        params = {
            name: self(*x.shape)
            for name, x in layouts.read(native, Role.PARAMETER).items()
        }
        buffers = {
            name: x.astype(jnp.float64)
            for name, x in layouts.read(native, Role.BUFFER).items()
            if jnp.issubdtype(x.dtype, jnp.floating)
        }
        arrays, roles = {**params, **buffers}, [Role.PARAMETER]
        roles += [Role.BUFFER] * bool(buffers)
        return layouts.write(native, arrays, *roles), params


def mask(*shape: int) -> Any:
    """Returns a mask that is true for about two in three elements."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3 > 0


def evaluate(comparison: Comparison) -> tuple[Any, Any]:
    """Returns the outputs and gradients of both sides of a comparison.

    The gradients are those of a weighted sum of the outputs, with respect to
    each array.
    """
    shapes = shapes_of(comparison)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]

    def side(arrays: Any, number: int) -> tuple[Any, Any]:
        outputs = comparison(Draw(arrays))[number]
        # Floats only: a gradient with respect to an integer does not exist.
        floats = [
            x
            for x in map(jnp.asarray, jax.tree.leaves(outputs))
            if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        terms = [
            jnp.sum(jnp.where(jnp.isfinite(x), x, 0) * jnp.cos(_count(x)))
            for x in floats
        ]
        return sum(terms, jnp.zeros(())), outputs

    @jax.jit
    def both(arrays: Any) -> tuple[Any, Any]:
        differentiate = jax.grad(side, has_aux=True)
        first, second = (differentiate(arrays, i) for i in range(2))
        return first, second

    return jax.device_get(both(arrays))


def shapes_of(comparison: Comparison) -> list[tuple[int, ...]]:
    """Returns the shapes of the arrays that a comparison draws."""
    draw = Draw()

    def run() -> Any:
        return comparison(draw)

    jax.eval_shape(run)
    return draw.shapes


def _count(x: Any) -> Any:
    return jnp.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)
