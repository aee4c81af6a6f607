"""Low-rank adaptation (LoRA)."""

import dataclasses
import math

from jaxtyping import Array, Float

from common.layers._initial import uniform, zeros
from common.layers._layer import Layer, named, within
from common.layers._linear import linear, linear_variables
from common.protocol import Shaped, Variable


def lora_variables(
    in_features: int, rank: int, out_features: int
) -> dict[str, Variable]:
    """Returns `lora_a` (in, rank) and `lora_b` (rank, out).

    `lora_a` has He's uniform distribution, and `lora_b` is zero.
    """
    bound = math.sqrt(6 / in_features)
    return {
        "lora_a": Variable((in_features, rank), uniform(bound)),
        "lora_b": Variable((rank, out_features), zeros),
    }


def lora(
    x: Float[Array, "*B I"],
    lora_a: Float[Array, "I R"],
    lora_b: Float[Array, "R O"],
) -> Float[Array, "*B O"]:
    """Computes the low-rank update `x @ lora_a @ lora_b`.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
        arXiv:2106.09685, where A and B are the transposes.
    """
    return x @ lora_a @ lora_b


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(Layer):
    """Computes a low-rank update, alone or added to a Linear layer."""

    name = "lora"
    family = "linear"

    in_features: int = 4
    rank: int = 2
    out_features: int = 3
    has_base: bool = True

    @property
    def inputs(self):
        return (Shaped((self.in_features,)),)

    def variables(self):
        variables = lora_variables(
            self.in_features, self.rank, self.out_features
        )
        if self.has_base:
            base = linear_variables(self.in_features, self.out_features)
            variables |= named("base_module", base)
        return variables

    def forward(self, params, buffers, x, *, key, training):
        y = lora(x, params["lora_a"], params["lora_b"])
        if self.has_base:
            y = y + linear(x, **within("base_module", params))
        return y, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRALinear(Layer):
    """Applies a Linear layer with a low-rank update."""

    name = "lora_linear"
    family = "linear"

    in_features: int = 4
    out_features: int = 3
    rank: int = 2
    use_bias: bool = True

    @property
    def inputs(self):
        return (Shaped((self.in_features,)),)

    def variables(self):
        base = linear_variables(
            self.in_features, self.out_features, bias=self.use_bias
        )
        update = lora_variables(self.in_features, self.rank, self.out_features)
        return base | named("lora", update)

    def forward(self, params, buffers, x, *, key, training):
        y = linear(x, params["weight"], params.get("bias"))
        return y + lora(x, **within("lora", params)), {}
