"""Canonical names and layouts of a model's arrays, one rule a layer type.

Parameters and statistics are all `nnx.Variable`s of the module, told apart by
their type, so one walk over the graph finds both.
"""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from flax import nnx

from common.state import Layout
from impl_flax import layers

Rule = dict[str, Callable[[Any], Any]]

INPUT, HIDDEN = {"weight": "weight_ih"}, {"weight": "weight_hh"}

# Parts of a layer whose arrays count as the layer's own, and what these are
# called then.
TRANSPARENT: dict[tuple[type, str], dict[str, str]] = {
    # normalisation
    (layers.SpectralNorm, "layer"): {},
    (layers.WeightNorm, "layer"): {"weight": "weight_v"},
    # recurrent
    **{(nnx.LSTMCell, part): INPUT for part in ("ii", "if_", "ig", "io")},
    **{(nnx.LSTMCell, part): HIDDEN for part in ("hi", "hf", "hg", "ho")},
    (nnx.OptimizedLSTMCell, "dense_i"): INPUT,
    (nnx.OptimizedLSTMCell, "dense_h"): HIDDEN,
    (nnx.GRUCell, "dense_i"): INPUT,
    (nnx.GRUCell, "dense_h"): HIDDEN,
    (nnx.SimpleCell, "dense_i"): INPUT,
    (nnx.SimpleCell, "dense_h"): HIDDEN,
}

# Parts whose arrays are joined, by their place along the last native axis.
BLOCKS: dict[tuple[type, str], int] = {
    # recurrent
    **{(nnx.LSTMCell, p): i for i, p in enumerate(("ii", "if_", "ig", "io"))},
    **{(nnx.LSTMCell, p): i for i, p in enumerate(("hi", "hf", "hg", "ho"))},
}

ATTENTIONS = (nnx.MultiHeadAttention, layers.MultiheadAttention)
PROJECTIONS = {
    "query": "query_proj",
    "key": "key_proj",
    "value": "value_proj",
    "out": "output_proj",
}

# Canonical names of a layer's parts, where they are others.
PARTS: dict[tuple[type, str], str] = {
    # attention
    **{(it, k): v for it in ATTENTIONS for k, v in PROJECTIONS.items()},
    (nnx.MultiHeadAttention, "query_ln"): "query_norm",
    (nnx.MultiHeadAttention, "key_ln"): "key_norm",
}

# Canonical leaf name of each Variable of each layer.
NAMES: dict[type, dict[str, str]] = {
    nnx.Linear: {"kernel": "weight"},
    nnx.LinearGeneral: {"kernel": "weight"},
    nnx.Einsum: {"kernel": "weight"},
    nnx.Embed: {"embedding": "weight"},
    nnx.Conv: {"kernel": "weight"},
    nnx.ConvTranspose: {"kernel": "weight"},
    nnx.BatchNorm: {
        "scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
    },
    layers.BatchNorm: {
        "scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
        "count": "num_batches_tracked",
    },
    nnx.LayerNorm: {"scale": "weight"},
    nnx.RMSNorm: {"scale": "weight"},
    nnx.GroupNorm: {"scale": "weight"},
    nnx.InstanceNorm: {"scale": "weight"},
    layers.SpectralNorm: {"u": "weight_u", "v": "weight_v"},
    layers.WeightNorm: {"scale": "weight_g"},
}


def _reverse(x: Any) -> Any:
    *kernel, i, o = range(x.ndim)
    return jnp.transpose(x, (o, i, *kernel))


def _restore(x: Any) -> Any:
    o, i, *kernel = range(x.ndim)
    return jnp.transpose(x, (*kernel, i, o))


def _kernel(layer: Any, kernel: Any) -> Rule:
    # Linear: (in, out) <-> (out, in).
    # Conv: (*kernel, in, out) <-> (out, in, *kernel), the kernel unreversed.
    del layer, kernel
    return {"to_native": _restore, "to_canonical": _reverse}


def _general_kernel(layer: Any, kernel: Any) -> Rule:
    # (*groups, *in, *out) <-> (*groups, out, in), flattened.
    groups = kernel.shape[: len(layer.batch_axis)]
    inputs = math.prod(layer.in_features)

    def to_canonical(x):
        return jnp.swapaxes(x.reshape(*groups, inputs, -1), -1, -2)

    return {
        "to_native": lambda x: jnp.swapaxes(x, -1, -2).reshape(kernel.shape),
        "to_canonical": to_canonical,
    }


def _general_bias(layer: Any, bias: Any) -> Rule:
    # (*groups, *out) <-> (*groups, out), flattened.
    groups = bias.shape[: len(layer.batch_axis)]
    return {
        "to_native": lambda x: x.reshape(bias.shape),
        "to_canonical": lambda x: x.reshape(*groups, -1),
    }


def _transposed_kernel(layer: Any, kernel: Any) -> Rule:
    # (*kernel, in / g, out) <-> (in, out / g, *kernel), flipped. With
    # `transpose_kernel` it is (*kernel, out, in), and not flipped.
    if getattr(layer, "transpose_kernel", False):
        return _kernel(layer, kernel)
    groups = getattr(layer, "feature_group_count", 1)

    def swap(x):  # (out, in / g, *kernel) <-> (in, out / g, *kernel)
        x = x.reshape(groups, -1, *x.shape[1:])
        x = jnp.swapaxes(x, 1, 2)
        return jnp.flip(x.reshape(-1, *x.shape[2:]), range(2, x.ndim - 1))

    return {
        "to_native": lambda x: _restore(swap(x)),
        "to_canonical": lambda x: swap(_reverse(x)),
    }


def _projection(layer: Any, array: Any) -> Rule:
    # (in, heads, size) or (heads, size, out) <-> (heads * size, in) or
    # (out, heads * size), and the bias (heads, size) <-> (heads * size,).
    if array.shape == layer.out_features:
        return {
            "to_native": lambda x: x.reshape(array.shape),
            "to_canonical": lambda x: x.reshape(-1),
        }
    inputs = math.prod(layer.in_features)
    return {
        "to_native": lambda x: x.T.reshape(array.shape),
        "to_canonical": lambda x: x.reshape(inputs, -1).T,
    }


def _length(layer: Any, scale: Any) -> Rule:
    # As the kernel that it belongs to, with axes of size 1.
    rule = _find(LAYOUTS, layer.layer, "kernel")
    return {} if rule is None else rule(layer.layer, scale)


# The layout of an array of a layer: a function of the two. In the place of
# the array, a part of the layer may be named: all arrays of that part.
LAYOUTS: dict[tuple[type, str], Callable[[Any, Any], Rule]] = {
    # linear
    (nnx.Linear, "kernel"): _kernel,
    (nnx.LinearGeneral, "kernel"): _general_kernel,
    (nnx.LinearGeneral, "bias"): _general_bias,
    # convolution
    (layers.ConvTranspose, "kernel"): _transposed_kernel,  # before its base
    (nnx.Conv, "kernel"): _kernel,
    (nnx.ConvTranspose, "kernel"): _transposed_kernel,
    # normalisation
    (layers.WeightNorm, "scale"): _length,
    # attention
    **{(it, part): _projection for it in ATTENTIONS for part in PROJECTIONS},
}


@dataclasses.dataclass(frozen=True)
class _Block(Layout):
    """A `Layout`, and which of the arrays that share its name this is.

    Attributes:
        index: its place along the last axis of the native arrays, joined.
        rule: the entry of `LAYOUTS` that it follows, if any.
    """

    index: int = 0
    rule: Callable[[Any, Any], Rule] | None = None


def layouts(
    module: nnx.Module, wrt: type[nnx.Variable]
) -> dict[tuple[Any, ...], _Block]:
    """Returns the `Layout` of each Variable of a type, by its path."""
    places = _places(module)
    return {
        path: _tied(module, variable, places.get(id(variable), [path]))[0]
        for path, variable in nnx.to_flat_state(nnx.state(module, wrt))
    }


def random_state(module: nnx.Module) -> dict[tuple[Any, ...], _Block]:
    """Returns the `Layout` of each `RngKey` and `RngCount`, by its path.

    Keys are canonical as their data, uint32, and counts as int32. `read` and
    `write` take it like `layouts`.
    """
    found = layouts(module, nnx.RngState)
    variables = dict(nnx.to_flat_state(nnx.state(module, nnx.RngState)))
    return {
        path: dataclasses.replace(layout, **_random(variables[path][...]))
        for path, layout in found.items()
    }


def _random(x: jax.Array) -> Rule:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return {
            "to_native": lambda data: jr.wrap_key_data(
                jnp.asarray(data, jnp.uint32), impl=jr.key_impl(x)
            ),
            "to_canonical": jr.key_data,
        }
    if x.ndim > 0:  # a key of the old style is data already
        return {}
    return {
        "to_native": lambda n: jnp.asarray(n).astype(x.dtype),
        "to_canonical": lambda n: n.astype(jnp.int32),
    }


def aliases(module: nnx.Module) -> dict[str, str]:
    """Returns the other names of tied arrays, and the canonical one of each.

    A module or a Variable in two places is tied. The first name in the order
    of strings is canonical.

    Raises:
        ValueError: if an array is tied to one of another layout.
    """
    places = _places(module)
    named = {}
    for _, variable in nnx.to_flat_state(nnx.state(module, nnx.Variable)):
        first, *others = _tied(module, variable, places[id(variable)])
        named |= {it.name: first.name for it in others}
    return named


def _places(module: nnx.Module) -> dict[int, list[tuple[Any, ...]]]:
    """Returns all paths to each Variable, by its `id`."""
    found: dict[int, list[tuple[Any, ...]]] = {}

    def visit(node, path, above):
        if isinstance(node, nnx.Variable):
            found.setdefault(id(node), []).append(path)
        elif nnx.graph.is_node(node) and id(node) not in above:
            for word, child in nnx.iter_children(node):
                visit(child, (*path, word), above | {id(node)})

    visit(module, (), frozenset())
    return found


def _tied(
    module: nnx.Module,
    variable: nnx.Variable,
    paths: list[tuple[Any, ...]],
) -> list[_Block]:
    """Returns the layouts of a Variable's places, the canonical one first."""
    array = variable.get_value()
    found = sorted(
        (_layout(module, path, array) for path in paths),
        key=lambda layout: layout.name,
    )
    if len({layout.rule for layout in found}) > 1:
        raise ValueError(
            f"tied array {found[1].name!r}: got a layout other than that of "
            f"{found[0].name!r}, expected the same. Tie arrays of layers of "
            "one type."
        )
    return found


def _layout(module: nnx.Module, path: tuple[Any, ...], array: Any) -> _Block:
    owner: Any = module
    words: list[str] = []
    renamed: dict[str, str] = {}
    block = rule = None
    for word in path[:-1]:
        part = _find(TRANSPARENT, owner, word)
        if part is None:
            words.append(_find(PARTS, owner, word) or str(word))
        rule = _find(LAYOUTS, owner, word)
        renamed = {} if part is None else renamed | part
        block = _find(BLOCKS, owner, word)
        owner = getattr(owner, word) if isinstance(word, str) else owner[word]
    leaf = path[-1]
    name = str(leaf)
    for kind, names in NAMES.items():
        if isinstance(owner, kind):
            name = names.get(name, name)
            break
    name = ".".join([*words, renamed.get(name, name)])
    rule = rule or _find(LAYOUTS, owner, leaf)
    transforms = {} if rule is None else rule(owner, array)
    index = 0 if block is None else block
    return _Block(name, **transforms, index=index, rule=rule)


def _find(rules: dict[tuple[type, str], Any], owner: Any, word: Any) -> Any:
    """Looks up the rule for an attribute of a layer, by type."""
    for (kind, name), rule in rules.items():
        if isinstance(owner, kind) and word == name:
            return rule
    return None


def join(leaves: Any, layouts: dict[tuple[Any, ...], _Block]) -> Any:
    """Turns leaves by path into leaves by name, their blocks joined."""
    named: dict[str, dict[int, Any]] = {}
    for path, leaf in leaves.items():
        layout = layouts[path]
        named.setdefault(layout.name, {})[layout.index] = leaf
    return {name: _concatenate(blocks) for name, blocks in named.items()}


def _concatenate(blocks: dict[int, Any]) -> Any:
    leaves = [blocks[i] for i in sorted(blocks)]
    # What stands in for an array, as `optax.MaskedNode` does, is in each.
    if len(leaves) == 1 or not hasattr(leaves[0], "shape"):
        return leaves[0]
    return jnp.concatenate(leaves, axis=-1)


def part(named: Any, layouts: dict[tuple[Any, ...], _Block]) -> Any:
    """Inverts `join`."""
    counts = collections.Counter(it.name for it in layouts.values())

    def block(layout):
        leaf, count = named[layout.name], counts[layout.name]
        if count == 1 or not hasattr(leaf, "shape"):
            return leaf
        return jnp.split(leaf, count, axis=-1)[layout.index]

    return {path: block(layout) for path, layout in layouts.items()}


def names(layouts: dict[tuple[Any, ...], _Block]) -> list[str]:
    """Returns the canonical names in a dict of layouts."""
    return list(dict.fromkeys(layout.name for layout in layouts.values()))


def read(
    module: nnx.Module, layouts: dict[tuple[Any, ...], _Block]
) -> dict[str, jax.Array]:
    """Returns a module's canonical arrays."""
    variables = dict(nnx.to_flat_state(nnx.state(module)))
    named = join({path: variables[path][...] for path in layouts}, layouts)
    by_name = {layout.name: layout for layout in layouts.values()}
    return {name: by_name[name].to_canonical(x) for name, x in named.items()}


def write(
    module: nnx.Module,
    layouts: dict[tuple[Any, ...], _Block],
    arrays: Any,
) -> None:
    """Writes canonical arrays into a module's Variables, in place."""
    variables = dict(nnx.to_flat_state(nnx.state(module)))
    named = {
        layout.name: jnp.asarray(layout.to_native(arrays[layout.name]))
        for layout in layouts.values()
    }
    for path, x in part(named, layouts).items():
        # `variable[...] = x` would cast to the dtype the Variable had.
        variables[path].set_value(x)
