"""The optimizers of a user's model: one for all, or one for each part."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.errors import choose
from common.layouts import ModelLayouts, Role
from common.native import NativeModel
from common.protocol import Arrays
from common.registry import find_library
from common.training.optimizers import OPTIMIZER, NamedOptimizer

CARRY = "carry"
"""First word of the keys in `State.opt` of what a model's own step carries."""


class PartOptimizer:
    """An optimizer of the parameters of one part of a model.

    Its state is what plain optax makes of the library's own tree of the
    part's parameters, unless it depends on the order of an array's axes.

    Attributes:
        named: the optimizer, which shows parameters by canonical name.
        names: the dotted name in the whole model of each parameter, by its
            path in the part.
    """

    def __init__(
        self,
        model: NativeModel,
        part: str,
        optimizer: optax.GradientTransformation,
    ):
        """Finds the parameters.

        Args:
            model: the whole model.
            part: the dotted path of the part, or `"optimizer"` for all of the
                model if it has no such part.
            optimizer: any optax transformation.

        Raises:
            ValueError: if there is no such part, if it has no parameters, or
                if one of them is tied to a parameter of another part.
        """
        self._model = model
        self._prefix = ""
        self.layouts: ModelLayouts = model.layouts
        if part != OPTIMIZER:
            self._prefix = f"{part}."
            self.layouts = find_library(model.library).layouts(
                model.part(part)
            )
        self.names = {
            array.path: self._prefix + array.dotted
            for array in self.layouts.arrays
            if array.role is Role.PARAMETER
        }
        self._require_parameters(part)
        shapes = {
            name: jax.ShapeDtypeStruct(x.value.shape, x.value.dtype)
            for name, x in model.infos.items()
        }
        self.named = NamedOptimizer(
            optimizer, self.layouts, self._tree(shapes), part
        )

    def _require_parameters(self, part: str) -> None:
        what = self._model.name + (f".{part}" if self._prefix else "")
        if not self.names:
            raise ValueError(
                f"{what}: got no parameters, expected at least one to "
                "train. Pass a model with floating arrays, in Flax as "
                "`nnx.Param`."
            )
        tied = sorted(set(self.names.values()) - self._model.infos.keys())
        if tied:
            raise ValueError(
                f"optimizer {part!r}: got {tied}, which are tied to arrays of "
                "another part, expected parameters of this part alone. Train "
                "both parts with one optimizer."
            )

    def init(self, arrays: Mapping[str, Any]) -> optax.OptState:
        """Returns the initial state for arrays by dotted name."""
        return self.named.init(self._tree(arrays))

    def update(
        self,
        arrays: Mapping[str, Any],
        grads: Mapping[str, Any],
        state: optax.OptState,
        **arguments: Any,
    ) -> tuple[dict[str, Any], optax.OptState]:
        """Returns the updated parameters by dotted name, and the new state.

        Args:
            arrays: of the whole model by dotted name.
            grads: of the part's parameters, by dotted name in the model.
            state: as `init` or the last `update` returned it.
            **arguments: `value` and `value_fn` as optax's line searches
                define them; `value_fn` takes arrays by dotted name.
        """
        value_fn = arguments.pop("value_fn", None)
        if value_fn is not None:
            arguments["value_fn"] = lambda tree: value_fn(self.flat(tree))
        tree, params = self._tree(grads), self._tree(arrays)
        updates, state = self.named.update(
            tree, state, params, **{"grad": tree, **arguments}
        )
        return self.flat(optax.apply_updates(params, updates)), state

    def flat(self, tree: Any) -> dict[str, Any]:
        """Returns the arrays of the library's own tree, by dotted name.

        The gradients of an NNX module are in Variables, which are pytrees.
        """
        by_path = self.layouts.flatten_parameters(tree)
        return {
            name: jax.tree.leaves(by_path[path])[0]
            for path, name in self.names.items()
        }

    def canonical(self, grads: Mapping[str, Any]) -> Arrays:
        """Returns gradients by canonical name, in canonical axis order."""
        named = self.layouts.to_canonical(self._tree(grads))
        return {self._prefix + name: x for name, x in named.items()}

    def _tree(self, arrays: Mapping[str, Any]) -> Any:
        """Makes the library's own tree of arrays by dotted name."""
        return self.layouts.unflatten_parameters(
            {path: arrays[name] for path, name in self.names.items()}
        )


class Updates:
    """Applies the optimizers in a model's own step: its argument `update`.

    Attributes:
        states: the state of each optimizer, by its name.
        gradients: the gradients that the optimizers received, by canonical
            name.
    """

    def __init__(
        self,
        model: NativeModel,
        parts: Mapping[str, PartOptimizer],
        states: Mapping[str, Any],
    ):
        self._model = model
        self._parts = parts
        self.states = dict(states)
        self.gradients: Arrays = {}

    def __call__(
        self, name: str, native: Any, grads: Any, **arguments: Any
    ) -> Any:
        """Updates the parameters of one part.

        Args:
            name: of the optimizer.
            native: the whole model, pair or module. An NNX module is updated
                in place.
            grads: the gradients with respect to the part, as `eqx.filter_grad`
                or `nnx.grad` returns them.
            **arguments: extra arguments of the optimizer, such as `value`.

        Returns:
            The whole model, pair or module.

        Raises:
            ValueError: if there is no such optimizer.
        """
        if name not in self._parts:
            fix = "Pass it to `build`."
            raise choose("optimizer", name, self._parts, fix)
        part = self._parts[name]
        flat = part.flat(grads)
        self.gradients |= part.canonical(flat)
        new, self.states[name] = part.update(
            self._model.read(native), flat, self.states[name], **arguments
        )
        return self._model.write(native, new)


def arrays_of(carry: Any) -> Any:
    """Returns what a step carries, with arrays in place of numbers."""
    return jax.tree.map(jnp.asarray, carry)
