"""How the arrays of a run are split over the devices of a mesh.

A rule gives a `jax.sharding.PartitionSpec` for a parameter in canonical axis
order. The optimizer's arrays of the same parameter follow it, and everything
else is on every device. The compiler propagates these through the transposes
between canonical and native order, so that one rule serves all backends.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = "data"
"""The name of the mesh axis that batches are split over."""

FSDP = "fsdp"

AnyMesh = Mesh | AbstractMesh

Rule = Callable[[str, tuple[int, ...]], P | None]
"""`(canonical name, canonical shape) -> PartitionSpec`."""


def check_mesh(mesh: Any, shard: Any) -> Mesh | None:
    """Checks the arguments `mesh` and `shard` of `build`.

    Returns:
        The mesh, whose axes are all of the type `Auto`, or `None`.

    Raises:
        ValueError: with the actual and the expected value.
    """
    if mesh is None:
        if shard is not None:
            raise ValueError(
                f"shard: got {shard!r} without a mesh, expected one to shard "
                'over. Pass `mesh=jax.make_mesh((n,), ("data",))`.'
            )
        return None
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"mesh: got {mesh!r} of type {type(mesh).__name__}, expected a "
            "jax.sharding.Mesh. Make one, as in "
            '`jax.make_mesh((n,), ("data",))`.'
        )
    if not (shard is None or shard == FSDP or callable(shard)):
        raise ValueError(
            f"shard: got {shard!r}, expected None, {FSDP!r} or a function. "
            "Pass `rule(name, shape) -> jax.sharding.PartitionSpec`."
        )
    data_axis(mesh)
    # A mesh of `jax.make_mesh` has explicit axes, under which the libraries'
    # own code would have to say how each result is sharded.
    return Mesh(mesh.devices, mesh.axis_names)


def data_axis(mesh: AnyMesh) -> str:
    """Returns the name of the axis that batches are split over.

    Raises:
        ValueError: if it cannot be told.
    """
    names = mesh.axis_names
    if DATA in names:
        return DATA
    if len(names) == 1:
        return names[0]
    raise ValueError(
        f"mesh: got the axes {', '.join(map(repr, names))}, expected one "
        f"called {DATA!r}, over which batches are split. Rename an axis."
    )


def largest_axis(shape: tuple[int, ...], mesh: AnyMesh) -> P:
    """Splits the largest axis that the devices divide: the rule "fsdp".

    An array without such an axis is on every device.
    """
    axis = data_axis(mesh)
    size = mesh.shape[axis]
    lengths = [n if n and n % size == 0 else 0 for n in shape]
    if not any(lengths):
        return P()
    largest = lengths.index(max(lengths))
    return P(*[None] * largest, axis)


def canonical_shardings(
    flat: Mapping[str, Any],
    parameters: Mapping[str, tuple[int, ...]],
    mesh: AnyMesh,
    shard: Any,
) -> dict[str, NamedSharding]:
    """Returns how each array of a State is split.

    Args:
        flat: arrays or their shapes, as `State.flat` returns them.
        parameters: the shape of each parameter by canonical name. The arrays
            may have further axes before these.
        mesh: the mesh.
        shard: the rule.

    Raises:
        ValueError: naming a parameter that the rule cannot split.
    """
    specs = {
        name: _spec(name, shape, mesh, shard)
        for name, shape in parameters.items()
    }
    found = {}
    for key, x in flat.items():
        name = _parameter_of(key, parameters)
        spec = P()
        if name is not None:
            shape, rank = parameters[name], len(parameters[name])
            before = len(x.shape) - rank
            if before >= 0 and x.shape[before:] == shape and specs[name]:
                spec = P(*[None] * before, *specs[name])
        found[key] = NamedSharding(mesh, spec)
    return found


def _parameter_of(key: str, parameters: Mapping[str, Any]) -> str | None:
    """Returns the parameter that an array of a State is or belongs to."""
    group, *words = key.split(".")
    if group == "params":
        return ".".join(words)
    if group != "opt":
        return None
    names = (".".join(words[i:]) for i in range(1, len(words)))
    return next((name for name in names if name in parameters), None)


def _spec(name: str, shape: tuple[int, ...], mesh: AnyMesh, shard: Any) -> P:
    """Returns what the rule says of a parameter, checked."""
    if shard is None:
        return P()
    if shard == FSDP:
        return largest_axis(shape, mesh)
    spec = shard(name, shape)
    if spec is None:
        return P()
    what = f"shard of {name!r} with shape {shape}"
    if not isinstance(spec, P):
        raise ValueError(
            f"{what}: got {spec!r}, expected a jax.sharding.PartitionSpec. "
            "Return one, or None for an array that is on every device."
        )
    try:
        NamedSharding(mesh, spec)
    except ValueError as error:
        raise ValueError(
            f"{what}: got {spec} ({error}), expected axes of the mesh, "
            f"{', '.join(map(repr, mesh.axis_names))}. Use these names."
        ) from error
    if len(spec) > len(shape):
        raise ValueError(
            f"{what}: got {spec}, expected at most {len(shape)} entries. "
            "Return one for each axis of the array."
        )
    for i, names in enumerate(spec):
        parts = _parts(names, mesh)
        if shape[i] % parts:
            raise ValueError(
                f"{what}: got {spec}, expected an axis {i} that {parts} "
                f"devices divide, not {shape[i]}. Split another axis, or "
                "return None."
            )
    return spec


def _parts(names: Any, mesh: AnyMesh) -> int:
    """Returns the number of parts that an entry of a spec makes."""
    if names is None:
        return 1
    parts = 1
    for name in names if isinstance(names, tuple) else (names,):
        parts *= mesh.shape[name]
    return parts
