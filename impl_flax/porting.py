"""What `port` asks of Flax: files, batch norm and layers it knows."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization

from impl_flax import layers
from impl_flax.rules import RULES as RULES

PREFIX = "flax.nnx.nn."
FILLS_IN_PLACE = True


def is_pair(native: Any) -> bool:
    """Tells a pair of a model and its state; there are none in NNX."""
    del native
    return False


def hollow(module: nnx.Module) -> nnx.Module:
    """Returns a module of the same structure, with shapes for arrays of JAX.

    So the arrays of the module can be freed when they are replaced.
    """
    graphdef, state = nnx.split(module)

    def describe(x):
        if not isinstance(x, jax.Array):
            return x
        weak = getattr(x, "weak_type", False)  # random keys have none
        return jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=x.sharding, weak_type=weak
        )

    return nnx.merge(graphdef, jax.tree.map(describe, state))


def batch_norm(layer: Any) -> tuple[str, float] | None:
    """Returns the dialect and the momentum of a batch norm layer."""
    if isinstance(layer, nnx.BatchNorm):
        return "standard", float(layer.momentum)
    if isinstance(layer, layers.BatchNorm):
        return layer.mode, float(layer.momentum)
    return None


def read_optimizer(optimizer: Any) -> tuple[Any, Any]:
    """Returns the optimizer's state as a plain tree, and its step.

    Raises:
        TypeError: if it is not an `nnx.Optimizer`.
    """
    if not isinstance(optimizer, nnx.Optimizer):
        raise TypeError(
            f"optimizer: got {type(optimizer).__name__}, expected an "
            "nnx.Optimizer. Pass the pair (module, optimizer)."
        )
    return nnx.as_pure(optimizer.opt_state), optimizer.step[...]


def write_optimizer(optimizer: Any, tree: Any, step: Any) -> Any:
    """Puts a plain tree into the optimizer, which is returned."""
    nnx.update(optimizer.opt_state, nnx.state(tree))
    if step is not None:
        dtype = optimizer.step[...].dtype
        optimizer.step.set_value(jnp.asarray(step, dtype))
    return optimizer


def read_file(path: pathlib.Path, like: Any) -> dict[str, np.ndarray]:
    """Reads an Orbax checkpoint of an `nnx.state`, or Flax msgpack.

    Args:
        path: the directory or the file.
        like: unused; the arrays have names.

    Returns:
        The arrays by the names that they have in the module.

    Raises:
        ValueError: if it is neither.
    """
    del like
    try:
        if path.is_dir():
            return _names(_read_orbax(path))
        return _names(serialization.msgpack_restore(path.read_bytes()))
    except Exception as error:  # the libraries raise several types
        raise ValueError(
            f"file {str(path)!r}: got something that cannot be read "
            f"({error}), expected an Orbax checkpoint directory, or a file of "
            "flax.serialization. Pass the path that was given when saving."
        ) from error


def _read_orbax(path: pathlib.Path) -> Any:
    import orbax.checkpoint as ocp  # slow to import

    if not (path / "_METADATA").exists() and (path / "default").exists():
        path = path / "default"  # as a CheckpointManager writes a step
    path = path.resolve()
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        # On the host, so that the devices need not be those of the writer.
        restore = ocp.RestoreArgs(restore_type=np.ndarray)
        wanted = jax.tree.map(functools.partial(_constant, restore), tree)
        return checkpointer.restore(path, restore_args=wanted)


def _constant(value: Any, leaf: Any) -> Any:
    del leaf
    return value


def _names(tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a nested dict by dotted name."""
    found: dict[str, np.ndarray] = {}

    def walk(node, words):
        if isinstance(node, dict):
            for word, child in node.items():
                walk(child, (*words, str(word)))
        elif isinstance(node, list | tuple):
            for i, child in enumerate(node):
                walk(child, (*words, str(i)))
        elif node is not None:
            if len(words) > 1 and words[-1] in ("value", "raw_value"):
                words = words[:-1]
            found[".".join(words)] = np.asarray(node)

    walk(tree, ())
    return found
