"""A user's model as a function of its arrays."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from common.layouts import ModelLayouts, NativeArray
from common.registry import find_library, library_of

Call = Callable[..., tuple[Any, Any]]
"""`call(native, xs, *, training, key) -> (outputs, native)`.

`native` is a model or module, or a pair of an Equinox model and its state.
What it returns beside the outputs may also be the new `eqx.nn.State` alone, or
`None` if the call changes nothing or changes an NNX module in place.
"""


class NativeModel:
    """A model of either library as a function of its arrays.

    Arrays go by their dotted path in the model, such as `layers.0.weight` or
    `norm1.mean`. A tied array has one name.

    Attributes:
        native: the model, module, or pair of a model and its state.
        library: `"equinox"` or `"flax"`.
        layouts: the names, roles and layouts of all arrays.
        infos: each array's path, role, shape and dtype, by dotted name.
    """

    def __init__(self, native: Any, call: Call | None = None):
        """Finds the library and all arrays of a model.

        Args:
            native: an Equinox model, a pair of a model and its
                `eqx.nn.State`, or an NNX module. It is never changed.
            call: how the model is called on a batch; by default as the
                library's own examples do.

        Raises:
            TypeError: if `native` is of neither library.
            ValueError: naming an array that has no place.
        """
        self.native = native
        self.library = library_of(native)
        home = find_library(self.library)
        self.layouts: ModelLayouts = home.layouts(native)
        self.infos: dict[str, NativeArray] = {
            array.dotted: array for array in self.layouts.arrays
        }
        self._call = call or home.call
        self._copy, self._with_state = home.copy, home.with_state

    def arrays(self) -> dict[str, Any]:
        """Returns the model's arrays by dotted name."""
        return self._read(self.native)

    def with_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """Returns a copy of the native object with other arrays.

        Args:
            arrays: by dotted name. The others stay as they are.

        Raises:
            ValueError: naming arrays that the model does not have.
        """
        unknown = sorted(arrays.keys() - self.infos.keys())
        if unknown:
            raise ValueError(
                f"arrays: got {unknown}, expected names among "
                f"{sorted(self.infos)}. Use the dotted path of an array."
            )
        by_path = {self.infos[name].path: x for name, x in arrays.items()}
        return self.layouts.replace(self._copy(self.native), by_path)

    def apply(
        self,
        arrays: Mapping[str, Any],
        xs: Any,
        *,
        training: bool = False,
        key: Any = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Calls the model with other arrays; pure, so that it can be traced.

        Args:
            arrays: by dotted name. The others stay as they are.
            xs: a batch.
            training: whether to call the model in training mode.
            key: a random key, if the model uses one.

        Returns:
            The outputs, and all arrays after the call.
        """
        native = self.with_arrays(arrays)
        call = functools.partial(self._call, native, xs)
        outputs, result = call(training=training, key=key)
        return outputs, self._read(self._with_state(native, result))

    def _read(self, native: Any) -> dict[str, Any]:
        by_path = self.layouts.flatten(native)
        return {name: by_path[x.path] for name, x in self.infos.items()}
