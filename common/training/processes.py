"""What the processes of one program agree on.

JAX runs the same script in every process. Where one of them would take
another turn, the others would wait for it without end. So the processes
compare what they were given, and find a difference before the first step.

Every process has to call these functions, in the same order.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from common.errors import BatchError

T = TypeVar("T")


def gather(value: Any) -> list[Any]:
    """Returns the JSON value that each process passes, in their order."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return [json.loads(x.tobytes()) for x in _gather_rows(text)]


def concatenate(rows: np.ndarray) -> np.ndarray:
    """Returns the rows that the processes pass, one after the other."""
    return np.concatenate(_gather_rows(rows))


def _gather_rows(rows: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of each process, which may be of any number."""
    from jax.experimental import multihost_utils  # slow to import

    data = rows.reshape(len(rows), -1).view(np.uint8)  # any dtype, as it is
    counts = multihost_utils.process_allgather(np.int32(len(rows)))
    padding = np.max(counts) - len(rows)
    padded = np.pad(data, [(0, padding), (0, 0)])
    everything = np.asarray(multihost_utils.process_allgather(padded))
    return [
        x[:count].copy().view(rows.dtype).reshape(count, *rows.shape[1:])
        for x, count in zip(everything, counts, strict=True)
    ]


def require_same(values: Mapping[str, Any]) -> None:
    """Checks that all processes were given the same values.

    Args:
        values: JSON values by what a message calls them.

    Raises:
        BatchError: naming the first value that differs. It is raised in all
            processes.
    """
    first, *others = gather({k: str(x) for k, x in values.items()})
    for i, other in enumerate(others, 1):
        for name, expected in first.items():
            got = other.get(name)
            if got != expected:
                raise BatchError(
                    f"{name} of process {i}: got {got}, expected {expected} "
                    "as in process 0. Start every process with the same "
                    "script and arguments."
                )


def together(check: Callable[[], T]) -> T:
    """Calls a function that may raise, and raises in all processes or none.

    Args:
        check: does not communicate.

    Raises:
        BatchError: where another process failed, with its message.
    """
    try:
        result, failure = check(), None
    except Exception as error:  # the others must hear of any
        result, failure = None, error
    messages = gather(None if failure is None else _message(failure))
    if failure is not None:
        raise failure
    for i, message in enumerate(messages):
        if message is not None:
            raise BatchError(
                f"process {i}: got an error, expected none. It raised this: "
                f"{message}"
            )
    return result  # type: ignore[return-value]


def _message(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if text.endswith(".") else text + "."


def agree(pending: bool, count: int) -> tuple[bool, int]:
    """Returns whether a flag is set anywhere, and process 0's count."""
    found = gather([bool(pending), int(count)])
    return any(flag for flag, _ in found), found[0][1]
