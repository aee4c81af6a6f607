"""Computes what training on many devices sends, keeps and writes.

Nothing is measured here. The volumes are those of ring algorithms, which the
tests compare with the compiled programs of two to eight devices. The times
follow from them and from the assumptions, which are arguments.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from common.benchmark.collectives import ring_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What a plan must know of a model and its optimizer.

    Attributes:
        name: what the tables call it.
        parameters: the number of elements of all parameters.
        norms: the number of channels of each BatchNorm.
        bytes_per_element: 4 for float32.
        moments: the arrays that the optimizer keeps of each parameter, 2 for
            Adam.
    """

    name: str
    parameters: int
    norms: tuple[int, ...] = ()
    bytes_per_element: int = 4
    moments: int = 2

    @property
    def size(self) -> int:
        """The bytes of all parameters."""
        return self.parameters * self.bytes_per_element

    @property
    def statistics(self) -> int:
        """The bytes of the running statistics: a mean and a variance."""
        return 2 * sum(self.norms) * self.bytes_per_element


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumptions:
    """The machine of a plan.

    Attributes:
        bandwidth: the bytes per second that each device sends.
        latency: the seconds of one message between two devices.
        per_process: the number of devices of a process.
        disk: the bytes per second that each process writes.
    """

    bandwidth: float = 25e9
    latency: float = 10e-6
    per_process: int = 8
    disk: float = 1e9


class Plan(NamedTuple):
    """What one layout on a number of devices costs.

    Attributes:
        moved: the bytes that each device sends in a step for the parameters
            and their gradients.
        seconds: how long these take, in one operation each, if nothing else
            goes on meanwhile.
        norm_messages: the all-reduces of synchronized BatchNorm in a step.
        norm_moved: the bytes that each device sends in these.
        norm_seconds: how long these take.
        memory: the bytes of the parameters, their gradients, the optimizer's
            arrays and the statistics on each device.
        processes: the number of processes that write a checkpoint.
        checkpoint: the bytes of a checkpoint.
        written: the bytes that each process writes.
        writing: the seconds to write these.
    """

    moved: float
    seconds: float
    norm_messages: int
    norm_moved: float
    norm_seconds: float
    memory: float
    processes: int
    checkpoint: float
    written: float
    writing: float


FORWARD = (1, 1)
"""The arrays of each all-reduce of a BatchNorm in the forward pass: the mean,
and then the variance around it."""

BACKWARD = (2, 1)
"""Those of the backward pass."""


def replicated_bytes(size: float, devices: int) -> float:
    """Returns what each device sends if all have every parameter.

    The gradients are summed in one all-reduce.

    Args:
        size: the bytes of all parameters.
        devices: the number of devices.
    """
    return ring_bytes("all-reduce", size, devices)


def fsdp_bytes(size: float, devices: int) -> float:
    """Returns what each device sends if each has a part of every parameter.

    The parameters are gathered for the forward pass and again for the
    backward pass, and the gradients are summed where their parameter is. A
    compiler that keeps what it gathered, and sums the gradients on all
    devices, sends as much: one gather and an all-reduce.

    Args:
        size: the bytes of all parameters.
        devices: the number of devices.
    """
    gathered = ring_bytes("all-gather", size, devices)
    return 2 * gathered + ring_bytes("reduce-scatter", size, devices)


def norm_messages(norms: Sequence[int]) -> int:
    """Returns the number of all-reduces of synchronized BatchNorm in a step.

    Args:
        norms: the number of channels of each layer.
    """
    return len(norms) * (len(FORWARD) + len(BACKWARD))


def norm_bytes(
    norms: Sequence[int], devices: int, bytes_per_element: int = 4
) -> float:
    """Returns what each device sends for synchronized BatchNorm in a step.

    Args:
        norms: the number of channels of each layer.
        devices: the number of devices.
        bytes_per_element: 4 for float32.
    """
    arrays = sum(FORWARD) + sum(BACKWARD)
    size = arrays * sum(norms) * bytes_per_element
    return ring_bytes("all-reduce", size, devices)


def ring_seconds(
    moved: float, rounds: int, devices: int, machine: Assumptions
) -> float:
    """Returns how long operations on large arrays take.

    A ring sends a part of the array in each of `n - 1` messages, all of which
    are as long.

    Args:
        moved: the bytes that each device sends.
        rounds: how often data goes around: once in an all-gather or a
            reduce-scatter, twice in an all-reduce.
        devices: the number of devices.
        machine: the bandwidth and the latency.
    """
    latency = rounds * (devices - 1) * machine.latency
    return moved / machine.bandwidth + latency


def tree_seconds(messages: int, devices: int, latency: float) -> float:
    """Returns how long small all-reduces take one after the other.

    A message of a few kilobytes costs its latency. A tree passes it up and
    down once, through as many levels as halve the devices.

    Args:
        messages: the number of all-reduces.
        devices: the number of devices.
        latency: the seconds of one message between two devices.
    """
    return messages * 2 * math.ceil(math.log2(devices)) * latency


def make_plan(
    model: Model,
    devices: int,
    shard: str,
    assumptions: Assumptions,
) -> Plan:
    """Computes what one layout on a number of devices costs.

    Activations are left out: they depend on the batch of each device, and
    not on the number of devices.

    Args:
        model: the model and its optimizer.
        devices: the number of devices.
        shard: `"replicated"` or `"fsdp"`.
        assumptions: the machine.
    """
    fsdp = shard == "fsdp"
    split, rounds = (devices, 3) if fsdp else (1, 2)
    volume = fsdp_bytes if fsdp else replicated_bytes
    moved = volume(model.size, devices)
    messages = norm_messages(model.norms)
    norm_moved = norm_bytes(model.norms, devices, model.bytes_per_element)
    held = (1 + model.moments) * model.size  # the gradients come on top
    processes = math.ceil(devices / assumptions.per_process)
    checkpoint = held + model.statistics
    written = checkpoint / processes
    return Plan(
        moved=moved,
        seconds=ring_seconds(moved, rounds, devices, assumptions),
        norm_messages=messages,
        norm_moved=norm_moved,
        norm_seconds=tree_seconds(messages, devices, assumptions.latency)
        + norm_moved / assumptions.bandwidth,
        memory=(held + model.size) / split + model.statistics,
        processes=processes,
        checkpoint=checkpoint,
        written=written,
        writing=written / assumptions.disk,
    )
