"""A native object as the flat list of arrays that a jitted step takes."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from common.protocol import Arrays, Rebuild, Spec


def initial_values(
    spec: Spec, key: PRNGKeyArray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the float32 values that every backend and dtype starts from."""
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        return jax.device_get(_init(spec, key))


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: Spec, key: PRNGKeyArray) -> tuple[Arrays, Arrays]:
    return spec.init(key)


def own(leaves: Iterable[Array]) -> list[Array]:
    """Copies arrays, so that donation hurts nobody, without weak types."""
    return [jnp.array(x, x.dtype, copy=True) for x in leaves]


def is_key(x: Array) -> bool:
    """Tells a typed PRNG key from other arrays."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def unwrap(arrays: Mapping[str, Array]) -> list[Array]:
    """Makes leaves of arrays: a typed key costs Python at every call."""
    return [jr.key_data(x) if is_key(x) else x for x in arrays.values()]


def rebuild_from(rebuild: Rebuild, are_keys: list[bool], leaves: Any) -> Any:
    """Rebuilds the native object from leaves."""
    return rebuild(
        [
            jr.wrap_key_data(x) if is_key else x
            for x, is_key in zip(leaves, are_keys, strict=True)
        ]
    )
