"""Linear layers of Flax NNX: over several axes, and given by an equation.

The layers act on one example. Like the stock layers they accept `key=` and
ignore it.
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
    r"""A linear map of one or more axes to new axes, which come last.

    .. math::
        y_{g, r, o} = \sum_i W_{g, o, i} \, x_{g, r, i} + b_{g, o}

    where :math:`i` runs over the elements of the mapped axes, :math:`o` over
    the elements of the new axes, :math:`r` over the remaining axes, and
    :math:`g` over leading group axes, each with its own matrix.

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import LinearGeneral
        >>> linear = LinearGeneral(
        ...     in_features=(3, 4), out_features=(2, 5), axis=(-2, -1),
        ...     key=jax.random.key(0),
        ... )
        >>> linear(jnp.ones((6, 3, 4))).shape
        (6, 2, 5)
        >>> linear.weight.shape
        (10, 12)

    References:
        Counterpart: `nnx.LinearGeneral`.
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
        """Creates a layer with one matrix for each group.

        Args:
            in_features: the sizes of the mapped axes; I is their product.
            out_features: the sizes of the new axes; O is their product.
            axis: the mapped axes, in increasing order.
            groups: the sizes of the leading group axes.
            use_bias: whether to add a bias.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial parameters.

        Raises:
            ValueError: if `axis` is not in increasing order.
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
        """Maps one example from shape (*G, *S) to shape (*G, *R, *out).

        Args:
            x: the example.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        x = jnp.moveaxis(x, self.axis, range(-len(self.axis), 0))
        *groups, _, inputs = self.weight.shape
        rest = x.shape[len(groups) : x.ndim - len(self.axis)]
        y = x.reshape(*groups, -1, inputs) @ self.weight.mT
        if self.bias is not None:
            y = y + self.bias[..., None, :]
        return y.reshape(*groups, *rest, *self.out_features)


class Einsum(eqx.Module):
    r"""Contracts its input with a weight as an equation says.

    .. math::
        y = \mathrm{einsum}(\mathrm{equation}, x, W) + b

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from impl_equinox.layers import Einsum
        >>> layer = Einsum(
        ...     "ti,io->to", shape=(3, 4), bias_shape=(4,),
        ...     key=jax.random.key(0),
        ... )
        >>> layer(jnp.ones((5, 3))).shape
        (5, 4)

    References:
        Counterpart: `nnx.Einsum`.
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
        """Creates a layer for one equation.

        Args:
            equation: an equation of one example and the weight, such as
                `"ti,io->to"`.
            shape: the shape of the weight.
            bias_shape: the sizes of those axes of the result that come from
                the weight, in the order of the result. Without it there is no
                bias.
            dtype: the dtype of the parameters, by default JAX's default
                float dtype.
            key: a PRNG key for the initial parameters.

        Raises:
            ValueError: if the equation does not have two operands and a
                result.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        equation = equation.replace(" ", "")
        if equation.count(",") != 1 or equation.count("->") != 1:
            raise ValueError(
                f"Einsum equation: got {equation!r}, expected two operands "
                "and a result. Write it in the form 'ti,io->to'."
            )
        operands, result = equation.split("->")
        letters = operands.split(",")[1]
        fan_in = math.prod(
            size
            for letter, size in zip(letters, shape, strict=True)
            if letter not in result
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
        """Contracts one example with the weight.

        Args:
            x: the example.
            key: ignored; provided for compatibility with other layers.
        """
        del key
        y = jnp.einsum(self.equation, x, self.weight)
        if self.bias is None:
            return y
        # The bias is broadcast along axes that do not come from the weight.
        operands, result = self.equation.split("->")
        letters = operands.split(",")[1]
        sizes = iter(self.bias.shape)
        shape = [
            next(sizes) if letter in letters else 1
            for letter in result.replace("...", "")
        ]
        return y + self.bias.reshape(shape)
