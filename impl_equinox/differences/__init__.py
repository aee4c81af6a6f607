"""Where stock Equinox layers part from the meaning: one function a row.

Equinox threads `State` through a `jax.vmap` over single examples, so each
demonstration writes that `vmap` out. `common.differences` holds the rows.
"""
