"""Equinox's linear layers."""

import equinox as eqx


def linear(in_features, out_features, *, use_bias, key):
    """Makes an affine map of the last axis."""
    return eqx.nn.Linear(in_features, out_features, use_bias=use_bias, key=key)
