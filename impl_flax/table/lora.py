"""Flax's low-rank adaptation."""

from flax import nnx


def lora(in_features, rank, out_features, *, has_base, rngs):
    """Makes an update of low rank, of a Linear if there is one."""
    base = nnx.Linear(in_features, out_features, rngs=rngs)
    return nnx.LoRA(
        in_features,
        rank,
        out_features,
        base_module=base if has_base else None,
        rngs=rngs,
    )


def lora_linear(in_features, out_features, *, rank, use_bias, rngs):
    """Makes a Linear with an update of low rank."""
    return nnx.LoRALinear(
        in_features,
        out_features,
        lora_rank=rank,
        use_bias=use_bias,
        rngs=rngs,
    )
