"""Equinox's low-rank adaptation."""

import equinox as eqx
import jax.random as jr

from impl_equinox import layers


def lora(in_features, rank, out_features, *, has_base, key):
    """Makes an update of low rank, of a Linear if there is one."""
    base_key, key = jr.split(key)
    base = eqx.nn.Linear(in_features, out_features, key=base_key)
    return layers.LoRA(
        in_features,
        rank,
        out_features,
        base_module=base if has_base else None,
        key=key,
    )


def lora_linear(in_features, out_features, *, rank, use_bias, key):
    """Makes a Linear with an update of low rank."""
    return layers.LoRALinear(
        in_features, out_features, rank=rank, use_bias=use_bias, key=key
    )
