"""The state of a run, as flat dicts of arrays by canonical name."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors

from common import checkpoints, tensors
from common.errors import StateError
from common.files import write_chunks

GROUPS = ("params", "buffers", "constants", "opt", "rng")
FORMAT = "eqx-vs-nnx/2"
FORMATS = ("eqx-vs-nnx/1", FORMAT)
"""The formats that `State.read` reads. The first has no digests."""

SHOWN = 8
"""How many arrays of each group the `repr` of a State shows."""

UNSIGNED = "0" * 64
"""The digest in a file's header while the digest is computed."""

COUNTERS = {"step", "rng.epoch", "rng.position"}
"""The entries that count steps, epochs and examples."""

MODEL = "model."
"""Start of the names of a model's own random state in `State.rng`."""


@dataclasses.dataclass(frozen=True, repr=False)
class State:
    """A run of a model at a step, independent of the library that made it.

    Attributes:
        params: trainable arrays, `linear1.weight`, in PyTorch's axis order.
        buffers: arrays that a training step may update other than by
            gradients, `norm1.running_mean`. Integers are int32.
        opt: optimizer state, `<optimizer>.<optax path>.<name>`.
        rng: `key` (the data of the run's base key); the place in the data
            order: `epoch`, and `position`, the number of examples of that
            epoch already seen; and the model's own keys and counters,
            `model.dropout.rngs.key`.
        step: the number of training steps taken.
        constants: arrays of the model that training does not change, such as
            a mask, in the dtype that the model keeps them in.
    """

    params: Mapping[str, Any]
    buffers: Mapping[str, Any]
    opt: Mapping[str, Any]
    rng: Mapping[str, Any]
    step: Any
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> dict[str, Any]:
        """Every array of the model, whatever its group, by canonical name."""
        return {
            **self.params,
            **self.buffers,
            **self.constants,
            **{
                name.removeprefix(MODEL): x
                for name, x in self.rng.items()
                if name.startswith(MODEL)
            },
        }

    def __repr__(self) -> str:
        """The name, dtype, shape and Euclidean norm of every array."""
        lines = [f"State(step={self.step})"]
        for group in GROUPS:
            arrays = getattr(self, group)
            shown = list(arrays.items())[:SHOWN]
            for number, (name, x) in enumerate(shown):
                title = "" if number else group
                lines.append(f"  {title:<9} {name}: {_summarize(x)}")
            if len(arrays) > SHOWN:
                lines.append(f"  {'':<9} and {len(arrays) - SHOWN} more")
        return "\n".join(lines)

    def flat(self) -> dict[str, Any]:
        """Returns every array by `group.name`, and `step`."""
        arrays = {
            f"{group}.{name}": x
            for group in GROUPS
            for name, x in getattr(self, group).items()
        }
        return arrays | {"step": self.step}

    @classmethod
    def from_flat(cls, arrays: Mapping[str, Any]) -> "State":
        """Returns the State of which `flat` returned the arrays.

        Args:
            arrays: by `group.name`. A group without arrays is empty.
        """
        groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for path, x in arrays.items():
            group, _, name = path.partition(".")
            if group in groups:
                groups[group][name] = x
        return cls(**groups, step=arrays["step"])

    def numpy(self) -> "State":
        """Returns a copy that owns its memory, on the host.

        Counters become int32, whatever a library counts in. Constants keep
        their dtype, and the data of random keys stays uint32.
        """

        def copy(name, x):
            x = np.asarray(x)
            return np.array(x, canonical_dtype(name, x.dtype))

        return State.from_flat(
            {name: copy(name, x) for name, x in self.flat().items()}
        )

    def hollow(self) -> "State":
        """Returns what `numpy` would, with zeros that take no memory.

        An entry may also be a `jax.ShapeDtypeStruct`.
        """

        def zeros(name, x):
            dtype = canonical_dtype(name, np.dtype(x.dtype))
            return np.broadcast_to(np.zeros((), dtype), x.shape)

        return State.from_flat(
            {name: zeros(name, x) for name, x in self.flat().items()}
        )

    def require_like(self, expected: "State") -> None:
        """Checks names, shapes and dtypes against another State's.

        Args:
            expected: the other State.

        Raises:
            StateError: naming every entry that is missing, unexpected, or of
                the wrong shape or dtype.
        """
        got, want = self.flat(), expected.flat()
        problems = [
            f"state[{name!r}]: got nothing, expected {_describe(want[name])}"
            for name in want.keys() - got.keys()
        ]
        problems += [
            f"state[{name!r}]: got {_describe(got[name])}, expected nothing"
            for name in got.keys() - want.keys()
        ]
        problems += [
            f"state[{name!r}]: got {_describe(got[name])}, "
            f"expected {_describe(want[name])}"
            for name in want.keys() & got.keys()
            if _describe(got[name]) != _describe(want[name])
        ]
        if problems:
            raise StateError(
                "; ".join(sorted(problems)) + ". Load a State of the same "
                "spec, hyper-parameters, optimizer and dtype."
            )

    def save(
        self, path: str | os.PathLike[str], meta: Mapping[str, Any]
    ) -> None:
        """Writes a safetensors file, which is complete or is not changed.

        The header has the SHA-256 of every array and of the whole file, so
        that `read` refuses a file that was damaged.

        Args:
            path: the file to write.
            meta: JSON values kept in the file's header.

        Raises:
            OSError: if the file cannot be written.
        """
        arrays = {
            name: np.asarray(x, order="C")
            for name, x in self.numpy().flat().items()
        }
        header = {
            "format": FORMAT,
            "meta": json.dumps(dict(meta)),
            "sha256": json.dumps({k: _sha256(x) for k, x in arrays.items()}),
            "digest": UNSIGNED,
        }
        whole = hashlib.sha256()
        for chunk in tensors.bytes_of(arrays, header):
            whole.update(chunk)
        start, *chunks = tensors.bytes_of(arrays, header)
        start = _with_digest(start, UNSIGNED, whole.hexdigest())
        write_chunks(path, (start, *chunks))

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], **options: Any
    ) -> tuple["State", dict[str, Any]]:
        """Reads the State and the `meta` of a run that was saved.

        A file of the first format has no digests, and is not verified. All
        others are verified whole before any array is read.

        Args:
            path: a file that `save` wrote, a checkpoint that `Trainer.fit`
                wrote, or the folder of its checkpoints, of which the newest
                is read.
            **options: for `checkpoints.read`, if it is no file: the
                `shardings` of the arrays that are to be read onto devices.

        Returns:
            The State, and the `meta` that was saved with it.

        Raises:
            StateError: if it was not written so, or if a bit of it has
                changed since.
        """
        if os.path.isdir(path):
            found = checkpoints.read(path, **options)
            what = f"checkpoint {str(found.path)!r}"
            _require_entries(what, found.arrays)
            return cls.from_flat(found.arrays), found.meta
        state, meta = cls.open(path)
        arrays = {name: np.array(x) for name, x in state.flat().items()}
        return cls.from_flat(arrays), meta

    @classmethod
    def open(
        cls, path: str | os.PathLike[str]
    ) -> tuple["State", dict[str, Any]]:
        """Verifies the file of a run, and reads each array when it is used.

        So the arrays take no memory, and they cannot be written to. The file
        may be replaced while the State is used, but not be written to.

        Args:
            path: a file that `save` wrote.

        Returns:
            The State, and the `meta` that was saved with it.

        Raises:
            StateError: if it was not written so, or if a bit of it has
                changed since.
        """
        stored, meta = _open(path)
        names: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
        for path_ in stored:
            group, _, name = path_.partition(".")
            if group in names:
                names[group][name] = path_
        groups = {group: stored.renamed(of) for group, of in names.items()}
        return cls(**groups, step=np.array(stored["step"])), meta


def _open(
    path: str | os.PathLike[str],
) -> tuple[tensors.Stored, dict[str, Any]]:
    """Verifies a file of a State, and returns its arrays and `meta`."""
    what = f"state file {str(path)!r}"
    try:
        stored = tensors.open_stored(path)
        header = stored.metadata
        meta = json.loads(header.get("meta", "{}"))
        if not isinstance(meta, dict):
            raise ValueError("meta is no JSON object")
    except (
        safetensors.SafetensorError,
        RecursionError,  # of the JSON parser
        TypeError,
        ValueError,
    ) as error:
        raise StateError(
            f"{what}: got bytes that are not safetensors of NumPy arrays "
            f"({error}), expected a file that `Trainer.save` wrote. Save "
            "the run again, or use a copy."
        ) from error
    if header.get("format") not in FORMATS:
        raise StateError(
            f"{what}: got format {header.get('format')!r}, expected "
            f"{FORMAT!r}. Write it with `Trainer.save`."
        )
    if header["format"] == FORMAT:
        _verify(what, stored)
    _require_entries(what, stored)
    return stored, meta


def canonical_dtype(name: str, dtype: Any) -> Any:
    """Returns the dtype that an array of a State has on the host.

    Args:
        name: the array's name in `State.flat`.
        dtype: the dtype that a library keeps the array in.
    """
    group, _, _ = name.partition(".")
    is_counter = (
        np.issubdtype(dtype, np.integer)
        and group != "constants"
        and not (group in ("rng", "opt") and dtype == np.uint32)
    )
    return np.dtype(np.int32) if is_counter else dtype


def _sha256(x: np.ndarray) -> str:
    # `tobytes` would copy, and NumPy's memoryviews lack some dtypes.
    flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    return hashlib.sha256(flat.data).hexdigest()


def _with_digest(header: bytes, old: str, new: str) -> bytes:
    """Replaces the digest in the header of a safetensors file."""
    return header.replace(
        f'"digest":"{old}"'.encode(), f'"digest":"{new}"'.encode()
    )


def _verify(what: str, stored: tensors.Stored) -> None:
    """Compares the digests in a file's header with its bytes."""
    digest = stored.metadata.get("digest", "")
    whole = hashlib.sha256(_with_digest(stored.start, digest, UNSIGNED))
    for chunk in stored.chunks():
        whole.update(chunk.data)
    if whole.hexdigest() == digest:
        return
    expected = stored.metadata.get("sha256", "")
    damaged = [k for k, x in stored.items() if _sha256(x) not in expected]
    raise StateError(
        f"{what}: got changed bytes in "
        f"{', '.join(sorted(damaged)) or 'the header'}, expected what "
        "`Trainer.save` wrote. The file was damaged since; use a copy."
    )


def _require_entries(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks the names in a file, its counters, and its booleans."""
    strangers = sorted(
        name
        for name in arrays
        if name != "step"
        and (name.partition(".")[0] not in GROUPS or not name.isprintable())
    )
    if strangers or "step" not in arrays:
        got = f"the entries {strangers}" if strangers else "no 'step'"
        raise StateError(
            f"{what}: got {got}, expected 'step' and names that start "
            f"with one of {', '.join(GROUPS)}. Write it with "
            "`Trainer.save`."
        )
    for name in COUNTERS & arrays.keys():
        x = arrays[name]
        if x.shape or not np.issubdtype(x.dtype, np.integer) or x < 0:
            raise StateError(
                f"{what}: got {name} {x}, expected an integer of 0 or more. "
                "Write it with `Trainer.save`."
            )
    for name, x in arrays.items():
        # NumPy would compute with any other byte as it is.
        on_host = isinstance(x, np.ndarray) and x.dtype == bool
        if on_host and (x.view(np.uint8) > 1).any():
            raise StateError(
                f"{what}: got bytes in {name!r} that are no booleans, "
                "expected 0 and 1. Write it with `Trainer.save`."
            )


def _summarize(x: Any) -> str:
    text = _describe(x)
    # Keys and counters have no norm, and a traced array has no numbers.
    if isinstance(x, np.ndarray) and x.dtype.kind in "fc":
        text += f", norm {np.linalg.norm(x):.3g}"
    return text


def _describe(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
