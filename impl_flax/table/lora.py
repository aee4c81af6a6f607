"""Flax's low-rank adaptation."""

from flax import nnx

from impl_flax.table.column import constructs


@constructs("lora", stock=("LoRA",), page="lora")
def lora(
    in_features: int,
    rank: int,
    out_features: int,
    *,
    has_base: bool,
    rngs: nnx.Rngs,
) -> nnx.LoRA:
    """Returns a low-rank update, added to a Linear if there is one."""
    base = nnx.Linear(in_features, out_features, rngs=rngs)
    return nnx.LoRA(
        in_features,
        rank,
        out_features,
        base_module=base if has_base else None,
        rngs=rngs,
    )


@constructs("lora_linear", stock=("LoRALinear",), page="lora")
def lora_linear(
    in_features: int,
    out_features: int,
    *,
    rank: int,
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.LoRALinear:
    """Returns a Linear with a low-rank update."""
    return nnx.LoRALinear(
        in_features, out_features, lora_rank=rank, use_bias=use_bias, rngs=rngs
    )
