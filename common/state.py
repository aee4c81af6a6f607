"""All that crosses between backends, as flat dicts by canonical name."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from common.errors import StateError

GROUPS = ("params", "buffers", "opt", "rng")
FORMAT = "eqx-vs-nnx/1"


def _same(x: Any) -> Any:
    return x


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one array goes between its canonical and its native axis order.

    Attributes:
        name: the canonical dotted name.
        to_native: array -> array.
        to_canonical: its inverse.
    """

    name: str
    to_native: Callable[[Any], Any] = _same
    to_canonical: Callable[[Any], Any] = _same


@dataclasses.dataclass(frozen=True)
class State:
    """A run of a model at a step, independent of the library that made it.

    Attributes:
        params: trainable arrays, `linear1.weight`, in PyTorch's axis order.
        buffers: the other arrays, `norm1.running_mean`; integers are int32.
        opt: optimizer state, `<optimizer>.<optax path>.<name>`.
        rng: `key` (the data of the run's base key), and the place in the
            data order: `epoch`, and `position`, the number of examples of
            that epoch already seen.
        step: the number of training steps taken.
    """

    params: Mapping[str, Any]
    buffers: Mapping[str, Any]
    opt: Mapping[str, Any]
    rng: Mapping[str, Any]
    step: Any

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
        """Inverts `flat`."""
        groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for path, x in arrays.items():
            group, _, name = path.partition(".")
            if group in groups:
                groups[group][name] = x
        return cls(**groups, step=arrays["step"])

    def numpy(self) -> "State":
        """Returns a copy that owns its memory, on the host.

        Counters become int32, whatever a library counts in. The data of
        random keys stays uint32.
        """

        def copy(name, x):
            x = np.asarray(x)
            integer = np.issubdtype(x.dtype, np.integer)
            key = name == "rng.key" or (
                name.startswith("opt.") and x.dtype == np.uint32
            )
            counter = integer and not key
            return np.array(x, np.int32 if counter else None)

        return State.from_flat(
            {name: copy(name, x) for name, x in self.flat().items()}
        )

    def require_like(self, expected: "State") -> None:
        """Checks names, shapes and dtypes against another State's.

        Raises:
            StateError: naming every entry that is missing, extra, or of the
                wrong shape or dtype.
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
        """Writes one safetensors file, whole or not at all.

        Args:
            path: the file to write.
            meta: JSON values kept in the file's header.
        """
        path = pathlib.Path(path)
        arrays = {
            name: np.asarray(x, order="C")
            for name, x in self.numpy().flat().items()
        }
        header = {"format": FORMAT, "meta": json.dumps(dict(meta))}
        data = safetensors.numpy.save(arrays, metadata=header)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    @classmethod
    def read(
        cls, path: str | os.PathLike[str]
    ) -> tuple["State", dict[str, Any]]:
        """Reads a file that `save` wrote: the State and its `meta`.

        Raises:
            StateError: if the file is not one of ours.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except safetensors.SafetensorError as error:
            raise StateError(
                f"state file {str(path)!r}: got bytes that are not "
                f"safetensors ({error}), expected a file that "
                "`Trainer.save` wrote. Save the run again."
            ) from error
        if header.get("format") != FORMAT:
            raise StateError(
                f"state file {str(path)!r}: got format "
                f"{header.get('format')!r}, expected {FORMAT!r}. Write it "
                "with `Trainer.save`."
            )
        meta = json.loads(header.get("meta", "{}"))
        if "step" not in arrays:
            raise StateError(
                f"state file {str(path)!r}: got no entry 'step', expected "
                "one. Write it with `Trainer.save`."
            )
        return cls.from_flat(arrays), meta


def _describe(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
