"""optax on parameters that go by canonical name.

Masks and labels are functions of the parameter tree, which is a different
tree in every library. Here every optimizer sees one and the same: a flat dict
by canonical name. What it keeps goes back into the library's own tree, so a
native optimizer state is what plain optax would have made.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.agreement import relative_error, tolerance
from common.protocol import Arrays

OPTIMIZER = "optimizer"
"""First word of the keys in `State.opt`."""


def on_names(
    optimizer: optax.GradientTransformation,
    to_names: Callable[[Any], Any],
    to_native: Callable[[Any], Any],
) -> optax.GradientTransformationExtraArgs:
    """Shows an optimizer flat dicts in place of a library's own trees.

    Costs nothing at run time: the arrays themselves are left alone.

    Args:
        optimizer: any optax transformation.
        to_names: replaces each native parameter tree in a tree by a dict.
        to_native: its inverse.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params):
        return to_native(inner.init(to_names(params)))

    def update(updates, state, params=None, **extra_args):
        updates, state = inner.update(
            to_names(updates), to_names(state), to_names(params), **extra_args
        )
        return to_native(updates), to_native(state)

    return optax.GradientTransformationExtraArgs(init, update)


def flatten(state: Any) -> Arrays:
    """Flattens an optimizer state over named parameters into `State.opt`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_key(path): leaf for path, leaf in leaves}


def unflatten(like: Any, arrays: Mapping[str, Any]) -> Any:
    """Inverts `flatten`, given a state of the same structure."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[_key(path)], like
    )


def map_named(
    function: Callable[[str, Any], Any], state: Any, names: Collection[str]
) -> Any:
    """Maps `(name, leaf) -> leaf` over the parameter-shaped leaves."""

    def visit(path, leaf):
        name = _name(path)
        return leaf if name not in names else function(name, leaf)

    return jax.tree_util.tree_map_with_path(visit, state)


def require_crossing(
    optimizer: optax.GradientTransformation, params: Mapping[str, Any]
) -> None:
    """Checks that an optimizer's state means the same in every library.

    It does where each array of it is a scalar or shaped like a parameter.
    Adafactor keeps rows and columns; a random key has no canonical form.

    Args:
        optimizer: any optax transformation.
        params: by canonical name; only shapes and dtypes are read.

    Raises:
        ValueError: naming the array that does not cross.
    """
    state = jax.eval_shape(optimizer.init, dict(params))
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = _name(path)
        want = params[name].shape if name in params else ()
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"optimizer state {_key(path)!r}: got a random key, expected "
                "numbers. It does not cross between backends; use an "
                "optimizer that draws nothing, such as adamw."
            )
        if leaf.shape != want:
            raise ValueError(
                f"optimizer state {_key(path)!r}: got shape {leaf.shape}, "
                f"expected {want}. It does not cross between backends (as "
                "those of adafactor and muon); use an optimizer that keeps "
                "scalars and parameter-shaped arrays, such as adamw."
            )


def require_optimizer(optimizer: Any) -> None:
    """Checks that something is an optax transformation.

    Raises:
        ValueError: telling what it is instead.
    """
    methods = (getattr(optimizer, name, None) for name in ("init", "update"))
    if isinstance(optimizer, type) or not all(map(callable, methods)):
        got = getattr(optimizer, "__name__", repr(optimizer))
        raise ValueError(
            f"optimizer: got {got} of type {type(optimizer).__name__}, "
            "expected an optax.GradientTransformation. Make one, as in "
            "`optax.adam(1e-3)`."
        )


def require_equivariance(
    optimizer: optax.GradientTransformation,
    params: Mapping[str, Any],
    dtype: str,
) -> None:
    """Checks that an optimizer does not mind the order of an array's axes.

    The libraries keep a matrix in different orders, and an optimizer sees
    their own. So it takes a step on small random arrays and on the same with
    their axes reversed: clipping row by row, or centering columns, shows.

    Args:
        optimizer: any optax transformation.
        params: by canonical name; only their numbers of axes are read.
        dtype: of the arrays to try it on.

    Raises:
        ValueError: naming the first parameter whose update depends on them.
    """
    rng = np.random.default_rng(0)

    def draw(scale):
        return {
            name: (
                scale * rng.normal(size=tuple(range(2, 2 + len(x.shape))))
            ).astype(dtype)
            for name, x in params.items()
        }

    @jax.jit
    def steps(params, grads):
        def step(turn):
            turned = jax.tree.map(turn, params)
            updates, _ = optimizer.update(
                jax.tree.map(turn, grads), optimizer.init(turned), turned
            )
            return jax.tree.map(turn, updates)

        return step(lambda x: x), step(jnp.transpose)

    # Large gradients, for what only clips.
    straight, turned = steps(draw(1.0), draw(100.0))
    for name in params:
        off = relative_error(straight[name], turned[name])
        if off > tolerance(dtype, "gradients"):
            raise ValueError(
                f"optimizer update of {name!r}: got one that depends on the "
                "axis order, expected an elementwise one or one by norms of "
                "whole arrays. The libraries order axes differently; use "
                "such as adamw, or clip_by_global_norm."
            )


def _key(path: tuple[Any, ...]) -> str:
    return ".".join([OPTIMIZER, *map(_word, path)])


def _name(path: tuple[Any, ...]) -> str:
    """The last dict key on the way: a parameter's name, if there is one."""
    if path and isinstance(path[-1], jax.tree_util.DictKey):
        return str(path[-1].key)
    return ""


def _word(entry: Any) -> str:
    return jax.tree_util.keystr((entry,), simple=True)
