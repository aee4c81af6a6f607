"""Known differences between stock Equinox layers and their definitions.

Equinox passes `State` through a `jax.vmap` over single examples. Each
demonstration writes out that `vmap`, so that it can be read on its own.
"""
