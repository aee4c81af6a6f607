"""The environment of a measurement: versions, device, command, and date."""

import datetime
import os
import pathlib
import platform
import shlex
import sys
from importlib import metadata
from typing import Any

import jax

VERSIONED = ("jax", "jaxlib", "equinox", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Returns the installed versions of the libraries that are compared."""
    return {name: metadata.version(name) for name in VERSIONED}


def environment() -> dict[str, Any]:
    """Returns the environment of this process as values for JSON."""
    device = jax.devices()[0]
    return {
        "command": command(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": f"{len(jax.devices())} x {device.device_kind}"
        f" ({device.platform})",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "versions": versions(),
    }


def command() -> str:
    """Returns the command that reproduces this run."""
    program = pathlib.Path(sys.argv[0])
    name = (
        f"python -m {program.parent.name}"
        if program.name == "__main__.py"
        else program.name
    )
    return shlex.join([*name.split(), *sys.argv[1:]])


def flag(name: str) -> Any:
    """Returns the current value of a JAX flag.

    The value includes the effect of context managers such as
    `jax.enable_x64`.
    """
    return getattr(jax.config, name)
