"""What every figure depends on: versions, device, command, date."""

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
    """Returns the versions of the libraries that the figures depend on."""
    return {name: metadata.version(name) for name in VERSIONED}


def environment() -> dict[str, Any]:
    """Returns all that a figure depends on, as plain values."""
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
    """Returns how this process was started, to be started again."""
    program = pathlib.Path(sys.argv[0])
    name = (
        f"python -m {program.parent.name}"
        if program.name == "__main__.py"
        else program.name
    )
    return shlex.join([*name.split(), *sys.argv[1:]])


def flag(name: str) -> Any:
    """Reads a flag of jax as it is here, in a context manager too."""
    return getattr(jax.config, name)
