"""The options of a command that trains on several devices."""

import argparse
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--devices` and `--shard`."""
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="split each batch over N devices; a machine without "
        "accelerators provides N virtual ones (default: one device)",
    )
    parser.add_argument(
        "--shard",
        choices=["fsdp"],
        help="with --devices, split the parameters and the optimizer's state "
        "too (default: every device has all of them)",
    )


def choose_devices(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments `mesh` and `shard` of `build`.

    On a machine whose only devices are CPUs, JAX provides as many as it is
    asked for before it first uses them.

    Raises:
        ValueError: if there are not that many devices.
    """
    import jax

    count = options.devices
    if count is None:
        if options.shard is not None:
            raise ValueError(
                f"--shard: got {options.shard!r} without --devices, expected "
                "devices to split over. Pass --devices N too."
            )
        return {}
    if count < 1:
        raise ValueError(
            f"--devices: got {count}, expected 1 or more. Pass the number of "
            "devices to train on."
        )
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has already started
        pass
    devices = jax.devices()
    if len(devices) < count:
        raise ValueError(
            f"--devices: got {count}, expected at most {len(devices)}, the "
            f"number of {devices[0].platform} devices. Use fewer devices."
        )
    mesh = jax.make_mesh((count,), ("data",), devices=devices[:count])
    return {"mesh": mesh, "shard": options.shard}
