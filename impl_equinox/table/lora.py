"""Equinox's low-rank adaptation."""

import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from impl_equinox import layers
from impl_equinox.table.column import constructs


@constructs("lora", kind="custom", using="LoRA")
def lora(
    in_features: int,
    rank: int,
    out_features: int,
    *,
    has_base: bool,
    key: PRNGKeyArray,
) -> layers.LoRA:
    """Returns a low-rank update, added to a Linear if there is one."""
    base_key, key = jr.split(key)
    base = eqx.nn.Linear(in_features, out_features, key=base_key)
    return layers.LoRA(
        in_features,
        rank,
        out_features,
        base_module=base if has_base else None,
        key=key,
    )


@constructs("lora_linear", kind="custom", using="LoRALinear")
def lora_linear(
    in_features: int,
    out_features: int,
    *,
    rank: int,
    use_bias: bool,
    key: PRNGKeyArray,
) -> layers.LoRALinear:
    """Returns a Linear with a low-rank update."""
    return layers.LoRALinear(
        in_features, out_features, rank=rank, use_bias=use_bias, key=key
    )
