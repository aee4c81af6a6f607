"""Linear layers of Flax NNX: over several axes, and by an equation.

They act on one example, take `key=` and ignore it, like any stock layer.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


def _uniform(key: PRNGKeyArray, shape: Sequence[int], fan_in: int, dtype):
    bound = 1 / math.sqrt(fan_in)
    return jr.uniform(key, shape, dtype, -bound, bound)


class LinearGeneral(eqx.Module):
    """Maps the product of some axes to new ones, which come last.

    Reference: `flax.nnx.LinearGeneral`.
    """

    weight: Float[Array, "*G O I"]
    bias: Float[Array, "*G O"] | None
    out_features: tuple[int, ...] = eqx.field(static=True)
    axis: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: Sequence[int],
        *,
        axis: Sequence[int] = (-1,),
        groups: Sequence[int] = (),
        use_bias: bool = True,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """Makes a layer with one matrix for each group.

        Args:
            in_features: sizes of the axes to map; I is their product.
            out_features: sizes of the new axes; O is their product.
            axis: the axes to map, increasing.
            groups: sizes of the leading axes that have a matrix each.
            use_bias: whether to add a bias.
            dtype: of the parameters; JAX's default if `None`.
            key: draws the parameters.
        """
        if list(axis) != sorted(axis):
            raise ValueError(
                f"LinearGeneral axis: got {tuple(axis)}, expected increasing "
                "axes. Sort them, and in_features with them."
            )
        dtype = jnp.result_type(float) if dtype is None else dtype
        i, o = math.prod(in_features), math.prod(out_features)
        weight_key, bias_key = jr.split(key)
        self.weight = _uniform(weight_key, (*groups, o, i), i, dtype)
        self.bias = None
        if use_bias:
            self.bias = _uniform(bias_key, (*groups, o), i, dtype)
        self.out_features = tuple(out_features)
        self.axis = tuple(axis)

    def __call__(
        self, x: Float[Array, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """Maps one example: (*G, *S) to (*G, *R, *out)."""
        del key
        x = jnp.moveaxis(x, self.axis, range(-len(self.axis), 0))
        *groups, _, inputs = self.weight.shape
        rest = x.shape[len(groups) : x.ndim - len(self.axis)]
        y = x.reshape(*groups, -1, inputs) @ self.weight.mT
        if self.bias is not None:
            y = y + self.bias[..., None, :]
        return y.reshape(*groups, *rest, *self.out_features)


class Einsum(eqx.Module):
    """Contracts its input with a weight, by an equation.

    Reference: `flax.nnx.Einsum`.
    """

    weight: Float[Array, "..."]
    bias: Float[Array, "..."] | None
    equation: str = eqx.field(static=True)

    def __init__(
        self,
        equation: str,
        shape: Sequence[int],
        bias_shape: Sequence[int] | None = None,
        *,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """Makes a layer of one equation.

        Args:
            equation: of one example and the weight, such as `"ti,io->to"`.
            shape: of the weight.
            bias_shape: sizes of the result's axes that come from the weight,
                in the result's order; no bias if `None`.
            dtype: of the parameters; JAX's default if `None`.
            key: draws the parameters.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        equation = equation.replace(" ", "")
        if equation.count(",") != 1 or equation.count("->") != 1:
            raise ValueError(
                f"Einsum equation: got {equation!r}, expected two operands "
                "and a result. Write it as 'ti,io->to'."
            )
        operands, result = equation.split("->")
        letters = operands.split(",")[1]
        fan_in = math.prod(
            n for it, n in zip(letters, shape, strict=True) if it not in result
        )
        weight_key, bias_key = jr.split(key)
        self.weight = _uniform(weight_key, shape, fan_in, dtype)
        self.bias = None
        if bias_shape is not None:
            self.bias = _uniform(bias_key, bias_shape, fan_in, dtype)
        self.equation = equation

    def __call__(
        self, x: Float[Array, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """Contracts one example with the weight."""
        del key
        y = jnp.einsum(self.equation, x, self.weight)
        if self.bias is None:
            return y
        # Axes of the result that do not come from the weight have size 1.
        operands, result = self.equation.split("->")
        letters = operands.split(",")[1]
        sizes = iter(self.bias.shape)
        shape = [
            next(sizes) if it in letters else 1
            for it in result.replace("...", "")
        ]
        return y + self.bias.reshape(shape)
