"""Linear maps and what is built of them alone."""

import dataclasses
import math

from jaxtyping import Array, Float

from common.layers._initial import uniform
from common.layers._layer import Layer, Side
from common.protocol import Shaped, Variable


def linear_variables(
    in_features: int, out_features: int, *, bias: bool = True
) -> dict[str, Variable]:
    """Weight (out, in) and bias (out,), both U(-1/sqrt(in), 1/sqrt(in)).

    Reference: the initialisation of `torch.nn.Linear` and `eqx.nn.Linear`.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """`x @ weight.T + bias`; the size `"scalar"` is 1 without an axis."""

    family = "linear"
    equinox = Side(("Linear",), page="linear")
    flax = Side(("Linear",), page="linear")

    in_features: int = 4
    out_features: int = 3
    use_bias: bool = True

    @property
    def inputs(self):
        return (Shaped((self.in_features,)),)

    def variables(self):
        return linear_variables(
            self.in_features, self.out_features, bias=self.use_bias
        )

    def forward(self, params, buffers, x, *, key, training):
        return linear(x, **params), {}
