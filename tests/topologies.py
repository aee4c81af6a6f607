"""Runs a function on virtual devices, in one process or in several.

XLA must know the number of devices before its first use, so each topology
needs new processes. They take about 3 seconds of processor time each to
start. Let a test file start each topology once, and check everything in one
function:

    def losses(seed):
        mesh = jax.make_mesh((jax.device_count(),), ("data",))
        ...
        return {"loss": np.asarray(loss), "process": jax.process_index()}

    [found] = topologies.run(losses, 0, devices=8)
    first, second = topologies.run(losses, 0, processes=2, devices=2)

A function is found by its module and name, so it is defined at the top of a
module of the tests. Its arguments and its result are pickled: return NumPy
arrays, or what `addressable_data` holds, and no JAX arrays.
"""

import faulthandler
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
TIMEOUT = 240.0
"""Seconds after which all processes are killed."""

HEARTBEAT = 30
"""Seconds until the other processes hear of one that was killed."""

PATIENCE = 30.0
"""Seconds that the other processes have to end when one has failed."""


class Outcome(NamedTuple):
    """How one process ended.

    Attributes:
        code: its exit status; negative if a signal killed it, as in
            `subprocess`. `None` if it did not end in time.
        result: what the function returned; `None` if it did not return.
        stderr: what it printed to stderr.
        seconds: how long it ran.
    """

    code: int | None
    result: Any
    stderr: str
    seconds: float


def run(
    function: Callable[..., Any],
    *arguments: Any,
    processes: int = 1,
    devices: int = 1,
    timeout: float = TIMEOUT,
) -> list[Any]:
    """Runs a function in every process of a topology.

    Args:
        function: defined at the top of a module.
        *arguments: for the function, the same in all processes.
        processes: how many. If they are several, `jax.distributed` is
            initialized in them, with gloo.
        devices: virtual CPU devices of each process.
        timeout: in seconds.

    Returns:
        What the function returned in each process.

    Raises:
        AssertionError: with the stderr of the processes that failed.
    """
    found = outcomes(
        function,
        *arguments,
        processes=processes,
        devices=devices,
        timeout=timeout,
    )
    failed = [
        f"process {i} of {processes} "
        + (f"exited with {x.code}" if x.code is not None else "was stopped")
        + f" after {x.seconds:.0f} s:\n{x.stderr[-6000:]}"
        for i, x in enumerate(found)
        if x.code != 0
    ]
    assert not failed, f"{function.__qualname__}: " + "\n".join(failed)
    return [x.result for x in found]


def outcomes(
    function: Callable[..., Any],
    *arguments: Any,
    processes: int = 1,
    devices: int = 1,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
) -> list[Outcome]:
    """Runs a function that may fail, or be killed, in some process.

    Args:
        function: as for `run`.
        *arguments: as for `run`.
        processes: as for `run`.
        devices: as for `run`.
        timeout: as for `run`.
        patience: seconds that the other processes have to end by themselves
            when one has failed. They are killed after that.

    Returns:
        How each process ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        address = f"127.0.0.1:{_free_port()}" if processes > 1 else ""
        job = (function, arguments, address, processes)
        (path / "job").write_bytes(pickle.dumps(job))
        began = time.perf_counter()
        children = []
        try:
            for index in range(processes):
                with open(path / f"stderr{index}", "wb") as stderr:
                    child = subprocess.Popen(
                        [sys.executable, "-m", __name__, folder, str(index)],
                        cwd=ROOT,
                        env=_environment(devices),
                        stdin=subprocess.DEVNULL,
                        stdout=stderr,
                        stderr=stderr,
                    )
                children.append(child)
            ended = _wait(children, began + timeout, patience)
            _show_stacks(c for i, c in enumerate(children) if i not in ended)
        finally:
            for child in children:
                child.kill()
                child.wait()
        return [
            Outcome(
                child.returncode if index in ended else None,
                _result(path / f"result{index}"),
                (path / f"stderr{index}").read_text(errors="replace"),
                ended.get(index, time.perf_counter()) - began,
            )
            for index, child in enumerate(children)
        ]


def _wait(
    children: list[subprocess.Popen], deadline: float, patience: float
) -> dict[int, float]:
    """Waits for all, and returns when those that ended by themselves did."""
    ended: dict[int, float] = {}
    while len(ended) < len(children) and time.perf_counter() < deadline:
        for index, child in enumerate(children):
            if index not in ended and child.poll() is not None:
                now = ended[index] = time.perf_counter()
                if child.returncode != 0:
                    deadline = min(deadline, now + patience)
        time.sleep(0.02)
    return ended


def _show_stacks(children: Iterable[subprocess.Popen]) -> None:
    """Lets processes that hang print where they are."""
    waiting = list(children)
    for child in waiting:
        child.send_signal(signal.SIGUSR1)
    if waiting:
        time.sleep(0.5)


def _result(path: pathlib.Path) -> Any:
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _environment(devices: int) -> dict[str, str]:
    """Sets up JAX as `tests/conftest.py` does."""
    from tests.conftest import CACHE, QUICK_FLAGS

    flags = os.environ.get("XLA_FLAGS", QUICK_FLAGS)
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": (
            f"{flags} --xla_force_host_platform_device_count={devices}"
        ),
        "JAX_ENABLE_X64": "1",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _work(folder: pathlib.Path, index: int) -> None:
    """What each process does."""
    import jax

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    watch = threading.Thread(target=_follow_parent, args=(os.getppid(),))
    watch.daemon = True
    watch.start()
    # The function's module is imported here; it must start no backend.
    job = pickle.loads((folder / "job").read_bytes())
    function, arguments, address, processes = job
    if processes > 1:
        jax.distributed.initialize(
            address,
            num_processes=processes,
            process_id=index,
            initialization_timeout=60,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    result = function(*arguments)
    partial = folder / f"partial{index}"
    partial.write_bytes(pickle.dumps(result))
    partial.rename(folder / f"result{index}")
    if processes > 1:
        jax.distributed.shutdown()


def _follow_parent(parent: int) -> None:
    """Ends this process when the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    try:
        _work(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    except BaseException:
        # Leaves at once: an exit that waits for the other processes would
        # hide which of them failed.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
