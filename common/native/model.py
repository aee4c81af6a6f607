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
        name: the name of the model's class.
        has_own_call: whether the user says how the model is called.
        compute_dtype: the dtype that calls compute in, if it is not that of
            the arrays.
    """

    def __init__(
        self,
        native: Any,
        call: Call | None = None,
        compute_dtype: str | None = None,
    ):
        """Finds the library and all arrays of a model.

        Args:
            native: an Equinox model, a pair of a model and its
                `eqx.nn.State`, or an NNX module. It is never changed.
            call: how the model is called on a batch; by default as the
                library's own examples do.
            compute_dtype: the dtype that calls compute in, in the library's
                own way. By default that of the arrays.

        Raises:
            TypeError: if `native` is of neither library.
            ValueError: naming an array that has no place.
        """
        self.native = native
        self.library = library_of(native)
        home = find_library(self.library)
        self.layouts: ModelLayouts = home.layouts(native)
        self.infos: dict[str, NativeArray] = {}
        for array in self.layouts.arrays:
            if array.dotted in self.infos:
                raise ValueError(
                    f"dotted name {array.dotted!r}: got the arrays "
                    f"{self.infos[array.dotted].path} and {array.path}, "
                    "expected one. Rename one of the attributes or keys."
                )
            self.infos[array.dotted] = array
        self.has_own_call = call is not None
        self.compute_dtype = compute_dtype
        self._own_call, self._call = call, call or home.call
        if compute_dtype is not None:
            self._call = home.narrowed(self._call, compute_dtype)
        self._copy, self._with_state = home.copy, home.with_state
        self._model = home.model
        self.name = type(home.model(native)).__name__

    @property
    def call(self) -> Call | None:
        """How the model is called, if not as the library's examples do."""
        if self.has_own_call or self.compute_dtype is not None:
            return self._call
        return None

    def arrays(self) -> dict[str, Any]:
        """Returns the model's arrays by dotted name."""
        return self.read(self.native)

    def part(self, path: str) -> Any:
        """Returns a part of the model.

        Args:
            path: attributes, indices and keys with dots between them.

        Raises:
            ValueError: if the model has no such part.
        """
        node = self._model(self.native)
        for word in path.split("."):
            try:
                node = _child(node, word)
            except (AttributeError, IndexError, KeyError):
                raise ValueError(
                    f"part of {self.name}: got {path!r}, expected the dotted "
                    f"path of a part, but {type(node).__name__} has no "
                    f"{word!r}. Write attributes, keys and indices with dots "
                    "between them, as in `layers.0.weight`."
                ) from None
        return node

    def with_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """Returns a copy of the native object with other arrays.

        Args:
            arrays: by dotted name. The others stay as they are.

        Raises:
            ValueError: naming arrays that the model does not have.
        """
        return self.write(self._copy(self.native), arrays)

    def copy(self, arrays: Mapping[str, Any]) -> "NativeModel":
        """Returns a model that is called like this one, with other arrays.

        Args:
            arrays: by dotted name, also of other dtypes. The others stay as
                they are.
        """
        return NativeModel(
            self.with_arrays(arrays), self._own_call, self.compute_dtype
        )

    def write(self, native: Any, arrays: Mapping[str, Any]) -> Any:
        """Returns a native object of this structure with other arrays.

        Args:
            native: a model, pair or module. A module is changed in place, and
                returned.
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
        return self.layouts.replace(native, by_path)

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

        Raises:
            TypeError: if the call does not return outputs and a native
                object.
        """
        native = self.with_arrays(arrays)
        call = functools.partial(self._call, native, xs)
        found = call(training=training, key=key)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise TypeError(
                f"call of {self.name}: got {type(found).__name__}, expected "
                "(outputs, native). Return the outputs, and the model, its "
                "new state, or None if the call changes nothing."
            )
        outputs, result = found
        return outputs, self.read(native, result)

    def read(self, native: Any, result: Any = None) -> dict[str, Any]:
        """Returns the arrays of a native object of this structure.

        Args:
            native: a model, pair or module.
            result: what a call of it returned beside the outputs, if
                anything.

        Raises:
            TypeError: if the result has another structure.
        """
        native = self._with_state(native, result)
        try:
            by_path = self.layouts.flatten(native)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TypeError(
                f"{self.name} after a call: got {type(native).__name__} of "
                "another structure, expected the structure that it had "
                "before. Return the model or pair with other arrays only."
            ) from error
        return {name: by_path[x.path] for name, x in self.infos.items()}


def _child(node: Any, word: str) -> Any:
    """Returns an item or an attribute of a node."""
    if isinstance(node, Mapping) and word in node:
        return node[word]
    if word.isdigit():
        return node[int(word)]
    return getattr(node, word)
