"""Canonical names and layouts of a model's arrays, one rule a layer type.

Parameters sit in the model and state in `eqx.nn.State`, so the two are found
by walking the model's paths: its arrays, and its `StateIndex`es.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer

from common.state import Layout
from impl_equinox import layers

Rule = dict[str, Callable[[Any], Any]]

EACH = "*"
"""In a path, the number of each layer whose arrays are stacked."""

# Parts of a layer whose arrays count as the layer's own, and what these are
# called then.
TRANSPARENT: dict[tuple[type, str], dict[str, str]] = {
    (eqx.nn.SpectralNorm, "layer"): {},
    (eqx.Partial, "func"): {},
    (eqx.nn.Shared, "pytree"): {},
    (layers.LoRALinear, "linear"): {},
    (eqx.nn.WeightNorm, "layer"): {"weight": "weight_v"},
}

# Canonical names of arrays and of parts, where they are others.
NAMES: dict[tuple[type, str], str] = {
    # normalisation
    (eqx.nn.WeightNorm, "g"): "weight_g",
}


def _broadcast_bias(layer: Any, bias: Any) -> Rule:
    # A convolution's is kept as (O, 1, 1), ready to broadcast.
    del layer
    return {
        "to_native": lambda x: x.reshape(bias.shape),
        "to_canonical": lambda x: x.reshape(-1),
    }


def _slope(layer: Any, slope: Any) -> Rule:
    # (C, 1, 1), which broadcasts over an image, <-> (C,).
    del layer
    if any(n != 1 for n in slope.shape[1:]):
        raise ValueError(
            f"PReLU negative_slope: got the shape {slope.shape}, expected "
            "one slope, or one for each channel as (C, 1, ...). Other shapes "
            "have no common layout in the two libraries."
        )
    return {
        "to_native": lambda x: x.reshape(slope.shape),
        "to_canonical": lambda x: x.reshape(slope.shape[:1]),
    }


def _transposed_kernel(layer: Any, weight: Any) -> Rule:
    # (O, I/g, *kernel) <-> (I, O/g, *kernel), flipped.
    del weight

    def swap(x):
        x = x.reshape(layer.groups, -1, *x.shape[1:])
        x = jnp.swapaxes(x, 1, 2)
        return jnp.flip(x.reshape(-1, *x.shape[2:]), range(2, x.ndim - 1))

    return {"to_native": swap, "to_canonical": swap}


# The layout of an array of a layer: a function of the two.
PARAMETERS: dict[tuple[type, str], Callable[[Any, Any], Rule]] = {
    # convolution
    (eqx.nn.Conv, "bias"): _broadcast_bias,
    (eqx.nn.ConvTranspose, "weight"): _transposed_kernel,
    (eqx.nn.ConvTranspose, "bias"): _broadcast_bias,
    # activation
    (eqx.nn.PReLU, "negative_slope"): _slope,
}

BUFFERS = {
    (eqx.nn.BatchNorm, "ema_first_time_index"): ("first_time",),
    (eqx.nn.BatchNorm, "ema_state_index"): ("running_mean", "running_var"),
    (eqx.nn.BatchNorm, "batch_counter"): ("num_batches_tracked",),
    (eqx.nn.BatchNorm, "batch_state_index"): ("running_mean", "running_var"),
    (layers.BatchNorm, "state_index"): ("running_mean", "running_var"),
    (eqx.nn.SpectralNorm, "uv_index"): ("weight_u", "weight_v"),
}


@dataclasses.dataclass(frozen=True)
class _Stack:
    """An array that holds several canonical ones, along its first axis.

    Attributes:
        layouts: of its parts.
        like: the array; what is written where there are no parts.
    """

    layouts: tuple[Layout, ...]
    like: Any


def parameters(model: eqx.Module) -> Any:
    """Puts a `Layout` in the place of each trainable array of a model.

    Where a layer stacks the arrays of several, it is a stack of them.
    """
    other_names = aliases(model)

    def layout(path, x):
        if not _is_parameter(x):
            return None
        owners, words = _walk(model, path)
        rule = _find(PARAMETERS, owners[-1], path[-1])
        transforms = rule(owners[-1], x) if rule else {}
        layouts = tuple(
            Layout(other_names.get(name, name), **transforms)
            for name in _names(words, x)
        )
        return _Stack(layouts, x) if EACH in words else layouts[0]

    return jax.tree_util.tree_map_with_path(layout, model)


def random_state(model: eqx.Module) -> Any:
    """Puts a `Layout` in the place of each key and integer array of a model.

    Keys are canonical as their data, uint32, and counters as int32. `read`
    and `write` take it like `parameters`.
    """

    def layout(path, x):
        kind = None if _is_index(x) else getattr(x, "dtype", None)
        if kind is None:
            return None
        if jnp.issubdtype(kind, jax.dtypes.prng_key):
            transforms = {
                "to_native": lambda data: jr.wrap_key_data(
                    jnp.asarray(data, jnp.uint32), impl=jr.key_impl(x)
                ),
                "to_canonical": jr.key_data,
            }
        elif not jnp.issubdtype(kind, jnp.integer):
            return None
        elif kind == jnp.uint32:  # a key of the old style is data already
            transforms = {}
        else:
            transforms = {
                "to_native": lambda n: jnp.asarray(n).astype(kind),
                "to_canonical": lambda n: n.astype(jnp.int32),
            }
        return Layout(".".join(_walk(model, path)[1]), **transforms)

    return jax.tree_util.tree_map_with_path(layout, model, is_leaf=_is_index)


def buffers(model: eqx.Module, state: eqx.nn.State) -> Any:
    """Puts a `Layout` in the place of each array of a model's state."""
    leaves, treedef = jax.tree.flatten(state)
    numbers = jax.tree.unflatten(treedef, range(len(leaves)))
    layouts: list[Layout | None] = [None] * len(leaves)
    other_names = aliases(model)
    for path, index in jax.tree_util.tree_flatten_with_path(
        model, is_leaf=_is_index
    )[0]:
        if not _is_index(index):
            continue
        found = jax.tree.leaves(numbers.get(index))
        names = [other_names.get(it, it) for it in _index_names(model, path)]
        if len(names) < len(found):
            # An unknown layer: its attribute's name, numbered if it is many.
            names = [f"{names[0]}.{i}" for i in range(len(found))]
        for number, name in zip(found, names, strict=True):
            layouts[number] = Layout(name, _cast(leaves[number]))
    return jax.tree.unflatten(treedef, layouts)


def aliases(model: eqx.Module) -> dict[str, str]:
    """Returns the other names of tied arrays, and the canonical one of each.

    `eqx.nn.Shared` ties arrays, and so does one `StateIndex` in two places.
    The first name in the order of strings is canonical. What `Shared` changes
    on the way, as by transposing it, is another array and not named.

    Raises:
        ValueError: if an array is tied to one of another layout.
    """
    groups: dict[Any, list[str]] = {}
    rules: dict[Any, Any] = {}

    # A tracer is the same object wherever `Shared` puts it.
    def collect(model):
        whole = _untie(model)
        for path, x in jax.tree_util.tree_flatten_with_path(
            whole, is_leaf=_is_index
        )[0]:
            if _is_index(x):
                key, names = x.marker, _index_names(whole, path)
            elif isinstance(x, Tracer):
                key = id(x)
                owners, words = _walk(whole, path)
                names = _names(words, x)
                rule = _find(PARAMETERS, owners[-1], path[-1])
                if rules.setdefault(key, rule) is not rule:
                    raise ValueError(
                        f"tied array {names[0]!r}: got a layout other than "
                        f"that of {groups[key, 0][0]!r}, expected the same. "
                        "Tie arrays of layers of one type."
                    )
            else:
                continue
            for i, name in enumerate(names):
                groups.setdefault((key, i), []).append(name)

    eqx.filter_eval_shape(collect, model)
    return {
        name: min(group)
        for group in groups.values()
        for name in group
        if name != min(group)
    }


def names(layouts: Any) -> list[str]:
    """Returns the canonical names in a tree of layouts."""
    return [
        one.name
        for layout in jax.tree.leaves(layouts)
        for one, _ in parts(layout, None)
    ]


def read(tree: Any, layouts: Any) -> dict[str, jax.Array]:
    """Returns the canonical arrays that a tree of layouts names in a tree."""
    found, treedef = jax.tree.flatten(layouts, is_leaf=lambda x: x is None)
    return {
        one.name: one.to_canonical(part)
        for layout, x in zip(found, treedef.flatten_up_to(tree), strict=True)
        if layout is not None
        for one, part in parts(layout, x)
    }


def write(tree: Any, layouts: Any, arrays: Any) -> Any:
    """Returns the tree with canonical arrays written into it."""
    new = jax.tree.map(
        lambda layout: jnp.asarray(
            whole(layout, lambda one: one.to_native(arrays[one.name]))
        ),
        layouts,
    )
    return eqx.combine(new, tree)


def parts(layout: Layout | _Stack, leaf: Any) -> list[tuple[Layout, Any]]:
    """Splits what is in an array's place, by the layouts of its parts."""
    if isinstance(layout, Layout):
        return [(layout, leaf)]
    # What stands in for an array, as `optax.MaskedNode` does, is in each.
    return [
        (one, leaf[i] if hasattr(leaf, "shape") else leaf)
        for i, one in enumerate(layout.layouts)
    ]


def whole(layout: Layout | _Stack, part: Callable[[Layout], Any]) -> Any:
    """Inverts `parts`."""
    if isinstance(layout, Layout):
        return part(layout)
    parts = [part(one) for one in layout.layouts]
    if not parts:
        return jnp.zeros(layout.like.shape, layout.like.dtype)
    return jnp.stack(parts) if hasattr(parts[0], "shape") else parts[0]


def _cast(like: Any) -> Any:
    """Counters keep the width that the library counts in."""
    if jnp.issubdtype(like.dtype, jnp.floating):
        return lambda x: x
    return lambda x: x.astype(like.dtype)


def _is_parameter(x: Any) -> bool:
    # `eqx.is_inexact_array`, but true of `jax.ShapeDtypeStruct`s too.
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def _is_index(x: Any) -> bool:
    return isinstance(x, eqx.nn.StateIndex)


def _untie(tree: Any) -> Any:
    """Puts tied arrays back in all their places, inside of `Shared`."""

    def is_shared(x):
        return isinstance(x, eqx.nn.Shared)

    def untie(x):
        if not is_shared(x):
            return x
        inner = eqx.tree_at(lambda it: it.pytree, x, _untie(x.pytree))
        return eqx.tree_at(lambda it: it.pytree, inner, inner())

    return jax.tree.map(untie, tree, is_leaf=is_shared)


def _index_names(model: Any, path: tuple[Any, ...]) -> list[str]:
    """Returns the canonical names behind a `StateIndex`."""
    owners, words = _walk(model, path)
    names = _find(BUFFERS, owners[-1], path[-1]) or (words[-1],)
    return [".".join([*words[:-1], name]) for name in names]


def _names(words: list[str], x: Any) -> list[str]:
    """Returns the canonical names of an array."""
    name = ".".join(words)
    if EACH not in words:
        return [name]
    return [name.replace(EACH, str(i + 1)) for i in range(x.shape[0])]


def _walk(model: Any, path: tuple[Any, ...]) -> tuple[list[Any], list[str]]:
    """Follows a path: the node at each entry, and the canonical words."""
    owners: list[Any] = []
    words: list[str] = []
    renamed: dict[str, str] = {}
    node: Any = model
    for entry in path:
        owner: Any = node
        owners.append(owner)
        word = jax.tree_util.keystr((entry,), simple=True)
        word = _find(NAMES, owner, entry) or _scanned(owners, entry) or word
        part = _find(TRANSPARENT, owner, entry)
        if part is None:
            words.append(renamed.get(word, word))
        renamed = {} if part is None else renamed | part
        if isinstance(entry, jax.tree_util.GetAttrKey):
            node = getattr(owner, entry.name)
        elif isinstance(entry, jax.tree_util.SequenceKey):
            node = owner[entry.idx]
        else:
            node = owner[entry.key]
    return owners, words


def _scanned(owners: list[Any], entry: Any) -> str | None:
    """Numbers the layers of an MLP that scans: first, stacked, last."""
    mlp = owners[-2] if len(owners) > 1 else None
    if not (isinstance(mlp, eqx.nn.MLP) and owners[-1] is mlp.layers):
        return None
    stacked = mlp.scan and mlp.depth > 0
    return ("0", EACH, str(mlp.depth))[entry.idx] if stacked else None


def _find(rules: dict, owner: Any, entry: Any) -> Any:
    """Looks up the rule for an attribute of a layer, by type."""
    for (kind, name), rule in rules.items():
        if isinstance(owner, kind) and getattr(entry, "name", None) == name:
            return rule
    return None
