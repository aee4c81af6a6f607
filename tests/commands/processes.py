"""Starts the command line in a process of its own, as a user does."""

import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
from typing import Any

from tests.conftest import CACHE

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(sysconfig.get_path("scripts")) / "eqx-vs-nnx"

Done = subprocess.CompletedProcess[str]


def environment(*folders: pathlib.Path, columns: int = 80) -> dict[str, str]:
    """Returns the variables of a process that shares the compile cache.

    Args:
        folders: searched for modules before this checkout.
        columns: the width of the terminal.
    """
    return os.environ | {
        "COLUMNS": str(columns),
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT))),
    }


def run_script(*words: str, **options: Any) -> Done:
    """Runs the installed console script on this checkout."""
    return _run([str(SCRIPT), *words], **options)


def run_module(*words: str, **options: Any) -> Done:
    """Runs `python -m common`."""
    return _run([sys.executable, "-m", "common", *words], **options)


def _run(command: list[str], **options: Any) -> Done:
    options = {"env": environment(), **options}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


# Python imports `sitecustomize` at startup. This one presses Control-C at a
# known moment, so that no test depends on how fast the machine is.
PRESS = f"""
import os, signal, sys, threading, time

# A background job ignores the signal; what it starts must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


def press():
    os.kill(os.getpid(), {int(signal.SIGINT)})


def press_later(seconds):
    threading.Timer(seconds, press).start()
"""


def run_with_startup(
    startup: str, folder: pathlib.Path, *words: str, **options: Any
) -> Done:
    """Runs the console script after a few lines of Python.

    Args:
        startup: may call `press()` and `press_later(seconds)`, which press
            Control-C.
        folder: where to put these lines.
    """
    (folder / "sitecustomize.py").write_text(PRESS + startup)
    return run_script(
        *words, env=environment(folder, columns=500), cwd=folder, **options
    )
