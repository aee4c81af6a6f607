"""Linear maps and layers that consist of them."""

import dataclasses
import itertools
import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from common.layers._activation import ACTIVATIONS, identity
from common.layers._initial import uniform
from common.layers._layer import Layer, extent, named, within
from common.protocol import Shaped, Variable

Size = int | Literal["scalar"]


def linear_variables(
    in_features: int, out_features: int, *, bias: bool = True
) -> dict[str, Variable]:
    """Returns weight (out, in) and bias (out,).

    Both are drawn from U(-1/sqrt(in), 1/sqrt(in)).

    References:
        The initialization of `torch.nn.Linear` and `eqx.nn.Linear`.
    """
    init = uniform(1 / math.sqrt(in_features))
    variables = {"weight": Variable((out_features, in_features), init)}
    if bias:
        variables["bias"] = Variable((out_features,), init)
    return variables


def linear(
    x: Float[Array, "*B I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, " O"] | None = None,
) -> Float[Array, "*B O"]:
    """Computes `x @ weight.T + bias`."""
    y = x @ weight.T
    return y if bias is None else y + bias


def _width(size: Size) -> int:
    return 1 if size == "scalar" else size


def _shape(size: Size) -> tuple[int, ...]:
    return () if size == "scalar" else (size,)


def _with_scalars(layer, x: Array, in_features: Size, out_features: Size):
    """Calls a layer with an axis of length 1 if a size is `"scalar"`."""
    if in_features == "scalar":
        x = x[..., None]
    y = layer(x)
    return y[..., 0] if out_features == "scalar" else y


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """Computes `x @ weight.T + bias`.

    A size of `"scalar"` stands for 1 without an axis.
    """

    name = "linear"
    family = "linear"

    in_features: Size = 4
    out_features: Size = 3
    use_bias: bool = True

    @property
    def inputs(self):
        return (Shaped(_shape(self.in_features)),)

    def variables(self):
        return linear_variables(
            _width(self.in_features),
            _width(self.out_features),
            bias=self.use_bias,
        )

    def forward(self, params, buffers, x, *, key, training):
        def layer(x):
            return linear(x, **params)

        sizes = self.in_features, self.out_features
        return _with_scalars(layer, x, *sizes), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity(Layer):
    """Returns its input."""

    name = "identity"
    family = "linear"

    size: tuple[int, ...] = extent((3,))

    @property
    def inputs(self):
        return (Shaped(self.size),)

    def forward(self, params, buffers, x, *, key, training):
        return identity(x), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function(Layer):
    """Applies a function that has no variables."""

    name = "function"
    family = "linear"

    function: Literal["tanh", "square"] = "tanh"
    size: tuple[int, ...] = extent((3,))

    @property
    def inputs(self):
        return (Shaped(self.size),)

    def forward(self, params, buffers, x, *, key, training):
        return getattr(jnp, self.function)(x), {}


# --- compositions of linear maps ---------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequential(Layer):
    """Applies layers in sequence: Linear layers with tanh between them."""

    name = "sequential"
    family = "linear"

    sizes: tuple[int, ...] = (4, 5, 3)
    use_bias: bool = True

    @property
    def inputs(self):
        return (Shaped((self.sizes[0],)),)

    def variables(self):
        variables = {}
        for i, sizes in enumerate(itertools.pairwise(self.sizes)):
            one = linear_variables(*sizes, bias=self.use_bias)
            variables |= named(f"layers.{2 * i}", one)
        return variables

    def forward(self, params, buffers, x, *, key, training):
        for i in range(len(self.sizes) - 1):
            if i > 0:
                x = jnp.tanh(x)
            x = linear(x, **within(f"layers.{2 * i}", params))
        return x, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP(Layer):
    """Applies `depth` hidden layers with activations, and an output layer.

    Without hidden layers the final activation is not applied.
    """

    name = "mlp"
    family = "linear"

    in_size: Size = 4
    out_size: Size = 3
    width_size: int = 5
    depth: int = 2
    activation: str = "relu"
    final_activation: str = "identity"
    use_bias: bool = True
    use_final_bias: bool = True
    scan: bool = False

    @property
    def inputs(self):
        return (Shaped(_shape(self.in_size)),)

    def variables(self):
        sizes = [_width(self.in_size)]
        sizes += [self.width_size] * self.depth + [_width(self.out_size)]
        variables = {}
        for i in range(self.depth + 1):
            last = i == self.depth
            one = linear_variables(
                *sizes[i : i + 2],
                bias=self.use_final_bias if last else self.use_bias,
            )
            variables |= named(f"layers.{i}", one)
        return variables

    def forward(self, params, buffers, x, *, key, training):
        def layers(x):
            for i in range(self.depth):
                x = linear(x, **within(f"layers.{i}", params))
                x = ACTIVATIONS[self.activation](x)
            x = linear(x, **within(f"layers.{self.depth}", params))
            if self.depth > 0:
                x = ACTIVATIONS[self.final_activation](x)
            return x

        return _with_scalars(layers, x, self.in_size, self.out_size), {}


# --- linear maps of several axes ---------------------------------------------


def linear_general(
    x: Float[Array, "B ..."],
    weight: Float[Array, "*G O I"],
    bias: Float[Array, "*G O"] | None = None,
    *,
    out_features: tuple[int, ...],
    axis: tuple[int, ...],
) -> Float[Array, "B ..."]:
    """Applies a linear map to several axes at once.

    Args:
        x: a batch, (B, *G, *S), with the group axes after the batch axis.
        weight: one matrix per group, over the flattened axes.
        bias: one vector per group.
        out_features: the sizes of the new axes. O is their product.
        axis: the axes to map, in increasing order. I is the product of their
            sizes.

    Returns:
        The remaining axes followed by the new ones, (B, *G, *R, *out).

    References:
        `flax.nnx.LinearGeneral`.
    """
    x = jnp.moveaxis(x, axis, range(-len(axis), 0))
    *groups, outputs, inputs = weight.shape
    rest = x.shape[1 + len(groups) : x.ndim - len(axis)]
    # A size of -1 would be unknown for an empty batch.
    x = x.reshape(x.shape[0], *groups, math.prod(rest), inputs)
    y = x @ jnp.swapaxes(weight, -1, -2)
    if bias is not None:
        y = y + bias[..., None, :]
    return y.reshape(x.shape[0], *groups, *rest, *out_features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearGeneral(Layer):
    """Applies a linear map to several axes, with one matrix per group."""

    name = "linear_general"
    family = "linear"

    in_features: tuple[int, ...] = (2, 3)
    out_features: tuple[int, ...] = (4,)
    axis: tuple[int, ...] = (-2, -1)
    groups: tuple[int, ...] = ()
    use_bias: bool = True
    rest: tuple[int, ...] = extent((5,))

    @property
    def inputs(self):
        # The remaining axes take the positions that are not in `axis`.
        rank = len(self.axis) + len(self.rest)
        sizes = zip(self.axis, self.in_features, strict=True)
        mapped = {axis % rank: n for axis, n in sizes}
        rest = iter(self.rest)
        shape = (mapped.get(i) or next(rest) for i in range(rank))
        return (Shaped((*self.groups, *shape)),)

    def variables(self):
        i, o = math.prod(self.in_features), math.prod(self.out_features)
        init = uniform(1 / math.sqrt(i))
        variables = {"weight": Variable((*self.groups, o, i), init)}
        if self.use_bias:
            variables["bias"] = Variable((*self.groups, o), init)
        return variables

    def forward(self, params, buffers, x, *, key, training):
        y = linear_general(
            x, **params, out_features=self.out_features, axis=self.axis
        )
        return y, {}


def einsum(
    x: Float[Array, "..."],
    weight: Float[Array, "..."],
    bias: Float[Array, "..."] | None = None,
    *,
    equation: str,
) -> Float[Array, "..."]:
    """Contracts `x` with a weight, as in `"...i,io->...o"`, and adds a bias.

    The bias has those axes of the result that come from the weight, in the
    order of the result.

    References:
        `flax.nnx.Einsum`.
    """
    y = jnp.einsum(equation, x, weight)
    if bias is None:
        return y
    operands, result = equation.split("->")
    letters = operands.split(",")[1]
    named_axes = result.replace("...", "")
    sizes = iter(bias.shape)
    shape = [next(sizes) if axis in letters else 1 for axis in named_axes]
    return y + bias.reshape(shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Einsum(Layer):
    """Contracts the input with a weight by an einsum equation."""

    name = "einsum"
    family = "linear"

    equation: str = "...ta,hab->...thb"
    shape: tuple[int, ...] = (3, 2, 4)
    bias_shape: tuple[int, ...] | None = (3, 4)
    size: tuple[int, ...] = extent((5, 2))

    @property
    def inputs(self):
        return (Shaped(self.size),)

    def variables(self):
        operands, result = self.equation.split("->")
        letters = operands.split(",")[1]
        contracted = [
            n
            for axis, n in zip(letters, self.shape, strict=True)
            if axis not in result
        ]
        init = uniform(1 / math.sqrt(math.prod(contracted)))
        variables = {"weight": Variable(self.shape, init)}
        if self.bias_shape is not None:
            variables["bias"] = Variable(self.bias_shape, init)
        return variables

    def forward(self, params, buffers, x, *, key, training):
        return einsum(x, **params, equation=self.equation), {}
