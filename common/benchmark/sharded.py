"""The hand-written training step on several devices, in plain JAX.

It is `plain.make_step`, jitted with a sharding for each argument. The batch
is divided over the axis of the mesh, and the arrays of the run as the layout
says. XLA inserts the communication.
"""

from typing import Any

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from common.benchmark import plain
from common.protocol import Spec
from common.training.reference import Native
from common.training.sharding import DATA, FSDP, largest_axis


def make_mesh(devices: int) -> Mesh:
    """Returns a mesh of the first devices, with one axis, `"data"`.

    Raises:
        ValueError: if this process does not have as many devices.
    """
    found = jax.devices()
    if not 1 <= devices <= len(found):
        raise ValueError(
            f"devices: got {devices}, expected 1 to {len(found)}, the devices "
            f"of this process ({found[0].platform}). Pass fewer."
        )
    return jax.make_mesh(
        (devices,), (DATA,), (AxisType.Auto,), devices=found[:devices]
    )


def make_step(
    spec: Spec, native: Native, mesh: Mesh, shard: str | None
) -> tuple[list[Any], Any]:
    """Makes a jitted training step over sharded arrays.

    Args:
        spec: the model.
        native: the initial values, from the reference backend.
        mesh: a mesh with one axis.
        shard: `"fsdp"` divides the largest axis of each parameter that the
            devices divide, and the optimizer's arrays of the parameter with
            it. `None` replicates everything. The buffers are always
            replicated.

    Returns:
        The arrays on their devices, and the step
        `(leaves, xs, ys) -> (leaves, loss)`, which donates them.
    """
    params, buffers, opt_state = native[:3]
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = dict.fromkeys(params, replicated)
    if shard == FSDP:
        shardings = {
            name: NamedSharding(mesh, largest_axis(array.shape, mesh))
            for name, array in params.items()
        }

    def like_parameters(array: Any, sharding: NamedSharding) -> NamedSharding:
        del array
        return sharding

    opt_shardings = optax.tree.map_params(
        spec.optimizer(),
        like_parameters,
        opt_state,
        shardings,
        transform_non_params=lambda array: replicated,
    )
    buffer_shardings = dict.fromkeys(buffers, replicated)
    layout = jax.tree.leaves((shardings, buffer_shardings, opt_shardings))

    leaves, step = plain.make_step(spec, native)
    batch = NamedSharding(mesh, PartitionSpec(DATA))
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(layout, batch, batch),
        out_shardings=(layout, replicated),
    )
    return jax.device_put(leaves, layout), jitted


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Divides the arrays of a batch over the devices of a mesh."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(DATA)))
