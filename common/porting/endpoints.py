"""The sources and targets of a port, whatever their form."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors

from common.layouts import Layout, Role
from common.layouts.model import ModelLayouts
from common.porting.arrays import ArrayInfo
from common.porting.folding import fold
from common.porting.sides import Side
from common.registry import find_library, find_porting, library_of
from common.state import FORMATS, MODEL, State
from common.tensors import INDEX, open_stored


@dataclasses.dataclass(frozen=True)
class Native:
    """A native model, and its optimizer's state if that was passed.

    Attributes:
        library: `"equinox"` or `"flax"`.
        model: the model, the module, or the pair of a model and its state.
        optimizer: an optax state or an `nnx.Optimizer`, or `None`.
        layouts: the layouts of the model.
        is_flat: whether (model, state, optimizer state) was passed.
    """

    library: str
    model: Any
    optimizer: Any
    layouts: ModelLayouts
    is_flat: bool = False

    @classmethod
    def of(cls, x: Any) -> "Native":
        """Takes apart what the user passed.

        Raises:
            TypeError: if it is of neither library.
        """
        flat = False
        model, optimizer = x, None
        if isinstance(x, tuple) and len(x) in (2, 3):
            library = library_of(x[0])
            if not find_porting(library).is_pair(x):
                flat = len(x) == 3
                model, optimizer = (x[:2], x[2]) if flat else x
        else:
            library = library_of(x)
        layouts = find_library(library).layouts(model)
        native = cls(library, model, optimizer, layouts, flat)
        if optimizer is not None:
            find_porting(library).read_optimizer(optimizer)
        return native

    def rebuilt(self, model: Any, optimizer: Any) -> Any:
        """Returns what the user passed, with a new model and optimizer."""
        if self.optimizer is None:
            return model
        return (*model, optimizer) if self.is_flat else (model, optimizer)

    def side(self, what: str) -> Side:
        """Returns what is known of the model's arrays."""
        layouts = self.layouts
        arrays = [a for a in layouts.arrays if a.path in layouts.native]
        renamed = {a.path: Layout.of(a.dotted, a.value.shape) for a in arrays}
        home = find_porting(self.library)
        return Side(
            what,
            {a.dotted: ArrayInfo.of(a.value, a.role) for a in arrays},
            {
                name: layout.substitute(renamed)
                for name, layout in layouts.canonical.items()
            },
            {a.dotted: layouts.native[a.path] for a in arrays},
            dict(layouts.aliases),
            frozenset(
                a.dotted
                for a in arrays
                if a.place.layout is not None
                or a.value.ndim < 2
                or _is_known(a.place.layer, home)
            ),
            {a.dotted: a.place.layer for a in arrays},
            self.model[0] if home.is_pair(self.model) else self.model,
            self.library,
        )

    def arrays(self) -> dict[str, Any]:
        """Returns the model's arrays by dotted name."""
        by_path = self.layouts.flatten(self.model)
        return {a.dotted: by_path[a.path] for a in self.layouts.arrays}


def _is_known(layer: Any, home: Any) -> bool:
    """Tells a layer whose axis order is that of its library, or has rules."""
    kinds = type(layer).__mro__
    return any(
        kind in home.RULES or kind.__module__.startswith(home.PREFIX)
        for kind in kinds
    )


@dataclasses.dataclass(frozen=True)
class Given:
    """A source that has been read.

    Attributes:
        side: what is known of its arrays.
        arrays: by name.
        native: the model, if it is one.
        state: the State, if it is one.
        is_native_names: whether the names are those of an NNX module.
    """

    side: Side
    arrays: Mapping[str, Any]
    native: Native | None = None
    state: State | None = None
    is_native_names: bool = False


def read_source(source: Any, like: Any = None) -> Given:
    """Reads a source of any form.

    Args:
        source: a native model, with or without its optimizer, a State, a
            mapping of names to arrays, or the path of a file.
        like: a model of the structure of the one that was written, or that
            has the names of the mapping.

    Raises:
        ValueError: if a file cannot be read, or a name is missing in `like`.
        TypeError: if the source is none of these.
    """
    named_by_nnx = False
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        if path.name.endswith((".safetensors", INDEX)):
            return _stored(path, like)
        source, named_by_nnx = _read_file(path, like)
    if isinstance(source, State):
        return _of_state(source, source.model)
    if isinstance(source, Mapping):
        arrays = {str(name): _numpy(x) for name, x in source.items()}
        if like is not None:
            return _named_like(arrays, Native.of(like))
        infos = {name: ArrayInfo.of(x) for name, x in arrays.items()}
        side = Side.plain("source", infos, infos)
        return Given(side, arrays, is_native_names=named_by_nnx)
    native = Native.of(source)
    return Given(native.side("source"), native.arrays(), native)


def _of_state(state: State, arrays: Mapping[str, Any]) -> Given:
    roles = [
        (state.params, Role.PARAMETER),
        (state.buffers, Role.BUFFER),
        (state.constants, Role.CONSTANT),
    ]
    kinds = {name: role for group, role in roles for name in group}
    infos = {
        name: ArrayInfo.of(x, kinds.get(name, Role.RANDOM_STATE))
        for name, x in arrays.items()
    }
    side = Side.plain("source", infos, infos)
    return Given(side, arrays, state=state)


def _stored(path: pathlib.Path, like: Any) -> Given:
    """Opens a safetensors file, of which it reads the header only."""
    _require_path(path)
    try:
        arrays = open_stored(path)
    except (
        OSError,  # of a file that an index names
        RecursionError,  # of the JSON parser
        safetensors.SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"source {str(path)!r}: got bytes that are not safetensors of "
            f"NumPy arrays ({error}), expected a safetensors file. Save the "
            "file again, with dtypes that NumPy or ml_dtypes has."
        ) from error
    if arrays.metadata.get("format") in FORMATS:
        state, _ = State.open(path)
        names = {
            name: f"{group}.{name}"
            for group in ("params", "buffers", "constants")
            for name in getattr(state, group)
        }
        names |= {
            name.removeprefix(MODEL): f"rng.{name}"
            for name in state.rng
            if name.startswith(MODEL)
        }
        return _of_state(state, arrays.renamed(names))
    if like is not None:
        return _named_like(arrays, Native.of(like))
    infos = {n: ArrayInfo.of(entry) for n, entry in arrays.entries.items()}
    return Given(Side.plain("source", infos, infos), arrays)


def _named_like(arrays: Mapping[str, Any], native: Native) -> Given:
    """Takes the names and layer types of a mapping from a model."""
    side = native.side("source")
    missing = sorted(side.infos.keys() - arrays.keys())
    unknown = sorted(arrays.keys() - side.infos.keys())
    if missing or unknown:
        raise ValueError(
            fold(
                f"source: got nothing for {missing} and arrays for "
                f"{unknown}, expected the arrays of `like`, "
                f"{sorted(side.infos)}."
            )
            + " Pass `like=` a model of the structure of the one that was "
            "written."
        )
    infos = {
        name: ArrayInfo.of(arrays[name], info.role)
        for name, info in side.infos.items()
    }
    wrong = [
        f"{name} {infos[name].shape} against {info.shape}"
        for name, info in side.infos.items()
        if infos[name].shape != info.shape
    ]
    if wrong:
        raise ValueError(
            fold(f"source: got the shapes {', '.join(wrong)} in `like`")
            + ", expected equal ones. Construct `like` as the model that was "
            "written."
        )
    side = dataclasses.replace(side, infos=infos)
    return Given(side, arrays, None)


def _numpy(x: Any) -> Any:
    """Returns an array; a tensor of PyTorch is copied to the host."""
    if isinstance(x, jax.Array | np.ndarray):
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x)


def _read_file(path: pathlib.Path, like: Any) -> tuple[Any, bool]:
    """Returns what is in a file, and whether an NNX module has its names."""
    _require_path(path)
    if path.suffix == ".eqx":
        if like is None:
            raise ValueError(
                f"source {str(path)!r}: got no `like`, expected a model of "
                "the structure that was written, since the file has no "
                "names. Pass `like=model` or `like=(model, state)`."
            )
        return find_porting("equinox").read_file(path, like), False
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle"):
        raise ValueError(
            f"source {str(path)!r}: got a pickle, which can run code, "
            "expected safetensors, .eqx, an Orbax directory or msgpack. Load "
            "the file yourself, and pass the dict of its arrays."
        )
    return find_porting("flax").read_file(path, like), True


def _require_path(path: pathlib.Path) -> None:
    if not path.exists():
        raise ValueError(
            f"source {str(path)!r}: got no file or directory, expected one. "
            "Relative paths begin in the working directory, "
            f"{str(pathlib.Path.cwd())!r}."
        )
