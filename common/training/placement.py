"""Where the arrays of a run lie: on one device, or split over a mesh."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from common.environment import flag
from common.errors import BatchError
from common.protocol import Settings
from common.state import State
from common.training import identity, processes
from common.training.checks import batch_size_of
from common.training.data import Take
from common.training.leaves import NARROWED, PureFunctions, as_arrays
from common.training.sharding import canonical_shardings, data_axis

T = TypeVar("T")


class Data(NamedTuple):
    """The examples of a data set on the devices.

    Attributes:
        arrays: a pytree of arrays whose first axis is the example.
        rows: returns the rows of these arrays that hold some examples.
    """

    arrays: Any
    rows: Callable[[np.ndarray], np.ndarray]

    def found(self, take: Take) -> Take:
        """Returns the steps of `take` as rows of the arrays."""

        def take_rows(start, end, *, count):
            examples, place = take(start, end, count=count)
            return self.rows(examples), place

        return take_rows


class Placement:
    """All arrays on JAX's default device.

    Attributes:
        leaves: the shardings of the leaves, as `jax.jit` takes them. `None`
            leaves the choice to JAX.
        replicated: the sharding of an array that every device has.
        outputs: the sharding of predictions.
        state: the sharding of each array of a State, by its name.
        parts: how many parts a batch is split into.
        processes: how many processes share the arrays.
        process: the number of this one among them.
        digest: of the initial leaves, where other processes have them too.
    """

    leaves: Any = None
    replicated: Any = None
    outputs: Any = None
    state: Any = None
    parts: int = 1

    processes: int = 1
    process: int = 0
    digest: str = ""

    def jit(
        self, function: Callable[..., Any], outputs: Any, **options: Any
    ) -> Any:
        """Compiles a function whose results have the given shardings.

        Args:
            function: of arrays that lie where this class puts them.
            outputs: the shardings of the results.
            **options: for `jax.jit`.
        """
        return jax.jit(function, out_shardings=outputs, **options)

    def check_batch(self, what: str, size: int, *, whole: bool) -> None:
        """Checks that the devices divide a batch.

        Args:
            what: what a message calls the size.
            size: the number of examples.
            whole: whether these are of all processes, or of this one.

        Raises:
            BatchError: with the size of the batch and of the mesh.
        """

    def batch(self, batch: Any, *, training: bool) -> Any:
        """Returns a batch on the devices.

        Raises:
            BatchError: if it is trained on and the devices do not divide it.
        """
        return batch

    def constrain(self, batch: Any) -> Any:
        """Splits a batch within a compiled program."""
        return batch

    def data(self, data: Any) -> Data:
        """Returns a data set on the devices."""
        return Data(as_arrays(data), lambda rows: rows)

    def put(self, leaves: Sequence[Array]) -> list[Array]:
        """Returns the leaves where they belong, from one device."""
        return list(leaves)

    def put_state(self, flat: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the arrays of a State where they belong, from the host."""
        return flat

    def to_host(self, state: State) -> State:
        """Returns a State on the host, but for what is where it belongs."""
        return state.numpy()

    def on_host(self, x: Any) -> np.ndarray:
        """Returns the whole of an array."""
        return np.asarray(x)

    def local(self, outputs: Any) -> Any:
        """Returns the predictions for the inputs of this process."""
        return outputs

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows of all processes, in their order."""
        return rows

    def together(self, check: Callable[[], T]) -> T:
        """Calls a function, and raises in all processes or in none."""
        return check()

    def require_same(self, values: Mapping[str, Any]) -> None:
        """Checks that all processes were given the same values."""

    def agree(self, pending: bool, count: int) -> tuple[bool, int]:
        """Returns whether a flag is set in any process, and the first
        process's count."""
        return pending, count


ONE_DEVICE = Placement()


class MeshPlacement(Placement):
    """Batches split over an axis of a mesh, and leaves split by a rule."""

    def __init__(
        self,
        settings: Settings,
        parameters: Mapping[str, tuple[int, ...]],
        pure: PureFunctions,
        leaves: Sequence[Array],
    ):
        """Finds the sharding of each leaf. Compiles `pure.load`.

        Args:
            settings: the mesh and the rule.
            parameters: the shape of each parameter by canonical name.
            pure: the functions over the leaves.
            leaves: on one device, or their shapes.

        Raises:
            ValueError: if the rule cannot split a parameter, or if several
                processes share a part of the batch.
        """
        mesh: Any = settings.mesh
        self.mesh: Mesh = mesh
        self._axis = data_axis(mesh)
        self.parts = mesh.shape[self._axis]
        self._owners = _owners(mesh, self._axis)
        self.processes = len(self._owners)
        self.process = list(self._owners).index(jax.process_index())
        self._several = self.processes > 1
        device = mesh.devices.flat[0]
        self._waits = device.platform == "cpu" and mesh.size > 1
        self.replicated = NamedSharding(mesh, P())
        self._split = NamedSharding(mesh, P(self._axis))
        if self._several:
            self.outputs = self._split
        flat = jax.eval_shape(pure.state, leaves)
        self.state = canonical_shardings(
            flat, parameters, mesh, settings.shard
        )
        self.leaves = self._propagate(pure, leaves, flat)
        if self._several:
            self.digest = identity.digest(map(np.asarray, leaves))

    def _propagate(self, pure, leaves, flat) -> list[NamedSharding]:
        """Returns the shardings of the leaves that hold a State's arrays."""
        old = [_like(x, self.replicated) for x in leaves]
        new = {k: _like(x, self.state[k]) for k, x in flat.items()}
        compiled = jax.jit(pure.load).lower(old, new).compile()
        return [
            NamedSharding(self.mesh, x.spec) for x in compiled.output_shardings
        ]

    def jit(self, function, outputs, **options):
        jitted = super().jit(function, outputs, **options)
        return _Waiting(jitted) if self._waits else jitted

    def check_batch(self, what, size, *, whole):
        parts = self.parts if whole else self.parts // self.processes
        if size % parts:
            where = " in this process" if parts < self.parts else ""
            raise BatchError(
                f"{what}: got {size}, expected a multiple of {parts}, the "
                f"length of the mesh axis {self._axis!r}{where}. Use another "
                "size, or another number of devices."
            )

    def batch(self, batch, *, training):
        size = batch_size_of(batch)
        sharding = self._split
        if training or self._several:
            self.check_batch("batch size", size, whole=False)
        elif size % self.parts:
            sharding = self.replicated

        def place(x):
            if isinstance(x, jax.Array) and not self._several:
                return jax.device_put(x, sharding)
            x = _narrow(x)
            return jax.make_array_from_process_local_data(sharding, x)

        return jax.tree.map(place, batch)

    def constrain(self, batch):
        return lax.with_sharding_constraint(batch, self._split)

    def data(self, data):
        data = jax.tree.map(_narrow, data)
        mine = self._owners[jax.process_index()]
        size = batch_size_of(data)
        length = -(-size // len(mine))
        padding = length * len(mine) - size

        def place(x):
            x = np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
            return jax.make_array_from_process_local_data(self._split, x)

        blocks = np.array(list(self._owners.values()))

        def rows(examples):
            process, local = np.divmod(examples, size)
            block = blocks[process, local // length]
            return (block * length + local % length).astype(examples.dtype)

        return Data(jax.tree.map(place, data), rows)

    def put(self, leaves):
        return [
            _spread(x, sharding)
            for x, sharding in zip(leaves, self.leaves, strict=True)
        ]

    def put_state(self, flat):
        split = self.state.items()
        return {k: _spread(flat[k], x) for k, x in split if k in flat}

    def to_host(self, state):
        flat = state.flat()
        split = {
            name: x
            for name, x in flat.items()
            if isinstance(x, jax.Array) and x.sharding == self.state.get(name)
        }
        others = {k: x for k, x in flat.items() if k not in split}
        others = State.from_flat({"step": 0, **others}).numpy().flat()
        return State.from_flat({**others, **split})

    def on_host(self, x):
        split = isinstance(x, jax.Array) and not x.is_fully_addressable
        if not split or x.is_fully_replicated:
            return np.asarray(x)
        from jax.experimental import multihost_utils  # slow to import

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    def local(self, outputs):
        if not self._several:
            return outputs
        from jax.experimental import multihost_utils

        return multihost_utils.global_array_to_host_local_array(
            outputs, self.mesh, P(self._axis)
        )

    def joined(self, rows):
        return processes.concatenate(rows) if self._several else rows

    def together(self, check):
        return processes.together(check) if self._several else check()

    def require_same(self, values):
        if self._several:
            processes.require_same(values)

    def agree(self, pending, count):
        if self._several:
            return processes.agree(pending, count)
        return pending, count


class _Waiting:
    """A jitted function that waits for its results.

    XLA runs the CPU devices of a program on one pool of threads. The devices
    wait for each other in a collective operation, so two such programs at a
    time may each hold threads that the other one needs.
    """

    def __init__(self, jitted: Any):
        self._jitted = jitted
        self.lower = jitted.lower

    def __call__(self, *args: Any) -> Any:
        return jax.block_until_ready(self._jitted(*args))


def on_the_host(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """A context in which a model is made on the host, to be split later.

    A model that needs a mesh may be too large for one of its devices. If JAX
    was told not to use the host's CPU, the model is made on the first device.
    """
    if mesh is None:
        return contextlib.nullcontext()
    try:
        (host, *_) = jax.local_devices(backend="cpu")
    except RuntimeError:
        return contextlib.nullcontext()
    return jax.default_device(host)


def _owners(mesh: Mesh, axis: str) -> dict[int, list[int]]:
    """Returns which parts of a batch the devices of each process take.

    Raises:
        ValueError: if the processes do not share the parts out evenly.
    """
    position = mesh.axis_names.index(axis)
    parts = np.moveaxis(mesh.devices, position, 0)
    parts = parts.reshape(mesh.shape[axis], -1)
    owners: dict[int, list[int]] = {}
    for i, devices in enumerate(parts):
        sharing = {device.process_index for device in devices}
        if len(sharing) > 1:
            raise ValueError(
                f"mesh: got part {i} of its axis {axis!r} in the processes "
                f"{sorted(sharing)}, expected one process for each part. "
                "Order the devices so that each process has whole parts."
            )
        owners.setdefault(sharing.pop(), []).append(i)
    counts = {process: len(mine) for process, mine in owners.items()}
    several = len(owners) > 1
    expected = set(range(jax.process_count())) if several else set(owners)
    expected.add(jax.process_index())
    if len(set(counts.values())) > 1 or set(owners) != expected:
        raise ValueError(
            f"mesh: got {counts} parts of its axis {axis!r} by process, "
            "expected the same number in every process. Use all devices."
        )
    return dict(sorted(owners.items()))


def _spread(x: Any, sharding: NamedSharding) -> Array:
    """Splits an array that every process has; nothing is communicated."""
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)


def _like(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _narrow(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if flag("jax_enable_x64"):
        return x
    return x.astype(NARROWED.get(x.dtype, x.dtype), copy=False)
