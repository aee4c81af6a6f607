"""Trains on the devices of several processes, such as one per machine."""

import jax
import numpy as np

from common import build


def train(xs, ys):
    """Returns the losses of a run whose parameters are divided.

    The examples are those of all processes, and each of them passes its own
    part. On a cluster, call `jax.distributed.initialize()` before.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    trainer = build("deep_mlp", backend="flax", mesh=mesh, shard="fsdp")
    process, processes = jax.process_index(), jax.process_count()
    xs, ys = (np.split(data, processes)[process] for data in (xs, ys))
    return trainer.fit(xs, ys, epochs=2, batch_size=8, progress=False)
