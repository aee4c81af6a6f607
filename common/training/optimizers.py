"""optax optimizers on parameters keyed by canonical name.

Masks and labels are functions of the parameter tree, and every library has a
different tree. Here each optimizer sees the same one: a flat dict by
canonical name. Its arrays have the library's own axis order where that makes
no difference to the optimizer, and canonical axis order otherwise.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

from common.layouts import Stacked
from common.layouts.model import is_key
from common.training.equivariance import is_equivariant
from common.training.optimizer_calls import (
    ARGUMENTS as ARGUMENTS,
)
from common.training.optimizer_calls import (
    accepted_arguments,
    functions_of,
    operands_of,
    with_arguments,
)
from common.training.stacked_optimizers import (
    first_layers,
    is_same_in_layers,
    under_vmap,
)

OPTIMIZER = "optimizer"
"""First word of the keys in `State.opt`."""


@runtime_checkable
class Layouts(Protocol):
    """Converts the parameter trees inside a tree; the rest is unchanged."""

    def to_names(self, tree: Any) -> Any:
        """Replaces parameter trees with flat dicts by canonical name."""
        ...

    def to_native(self, tree: Any) -> Any:
        """Inverts `to_names`."""
        ...

    def to_canonical(self, tree: Any) -> Any:
        """Like `to_names`, with the arrays in canonical axis order."""
        ...

    def from_canonical(self, tree: Any) -> Any:
        """Inverts `to_canonical`."""
        ...

    @property
    def stacks(self) -> dict[str, Stacked]:
        """The parameters that hold those of several layers."""
        ...

    def to_stacks(self, tree: Any) -> Any:
        """Like `to_names`, but takes no stack apart."""
        ...

    def from_stacks(self, tree: Any) -> Any:
        """Inverts `to_stacks`."""
        ...


class CanonicalLayouts:
    """The layouts of parameters that are canonical already."""

    @property
    def stacks(self) -> dict[str, Stacked]:
        return {}

    def to_names(self, tree: Any) -> Any:
        return tree

    to_native = to_canonical = from_canonical = to_names
    to_stacks = from_stacks = to_names


def in_default_dtype(shapes: Any) -> Any:
    """Returns the shapes with JAX's default dtype, which the run trains in.

    A library may give the shapes another one: NNX makes parameters in float32
    whether or not 64-bit types are enabled.
    """
    dtype = jnp.zeros(()).dtype
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)


class NamedOptimizer:
    """An optax optimizer that shows its parameters by canonical name.

    It has the methods of an `optax.GradientTransformationExtraArgs` over a
    library's own parameter trees. If the optimizer does not depend on the
    order of an array's axes, it sees the library's arrays, and its state is
    what plain optax would have made of them. Otherwise every array is
    transposed on its way in and out, and the state contains flat dicts of
    arrays in canonical axis order.

    Attributes:
        optimizer: the optimizer itself.
        layouts: the layouts of the library's parameters.
        native_order: whether the optimizer sees arrays in native axis order.
        arguments: names of the extra arguments that the optimizer accepts.
        name: the first word of its keys in `State.opt`.
    """

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        layouts: Layouts,
        params: Any,
        name: str = OPTIMIZER,
    ):
        """Determines which arguments and which axis order to use.

        Only traces the optimizer; compiles nothing.

        Args:
            optimizer: any optax transformation.
            layouts: the layouts of the library's parameters.
            params: the library's parameter tree, or its shapes.
            name: the first word of the optimizer's keys in `State.opt`.

        Raises:
            ValueError: if the optimizer cannot be traced.
        """
        self.optimizer = optax.with_extra_args_support(optimizer)
        self.layouts = layouts
        self.name = name
        canonical = jax.eval_shape(layouts.to_canonical, params)
        names = jax.eval_shape(layouts.to_names, params)
        canonical, names = in_default_dtype((canonical, names))
        self.stacks = layouts.stacks
        first = first_layers(canonical, self.stacks)
        self.arguments = accepted_arguments(self.optimizer, first)
        native_first = first_layers(names, self.stacks)
        self.native_order = isinstance(layouts, CanonicalLayouts) or commutes(
            self.optimizer, first, native_first, self.arguments
        )
        if self.stacks and not (
            self.native_order and self._takes_layers_alike(names, native_first)
        ):
            self.stacks = {}
            self.arguments = accepted_arguments(self.optimizer, canonical)
            self.native_order = self.native_order and commutes(
                self.optimizer, canonical, names, self.arguments
            )
        if self.native_order:
            self._show, self._restore = layouts.to_stacks, layouts.from_stacks
            if not self.stacks:
                self._show, self._restore = layouts.to_names, layouts.to_native
        else:
            self._show = layouts.to_canonical
            self._restore = layouts.from_canonical

    def init(self, params: Any) -> optax.OptState:
        """Returns the initial state for a library's parameters."""
        init = self.optimizer.init
        if self.stacks:
            init = under_vmap(init, self.stacks)
        state = init(self._show(params))
        return self._restore(state) if self.native_order else state

    def update(
        self, updates: Any, state: Any, params: Any = None, **arguments: Any
    ) -> tuple[Any, optax.OptState]:
        """Returns the updates and the new state.

        Args:
            updates: the gradients.
            state: as `init` or the last `update` returned it.
            params: the parameters.
            **arguments: `value`, `grad` and `value_fn` as optax's line
                searches define them, over the library's own trees.
        """
        if self.native_order:
            state = self._show(state)
        operands = self._show(updates), state, self._show(params)
        extra = self._select(arguments)
        if self.stacks:
            updates, state = self._update_stacks(*operands, extra)
        else:
            updates, state = self.optimizer.update(*operands, **extra)
        if self.native_order:
            state = self._restore(state)
        return self._restore(updates), state

    def read(self, state: optax.OptState) -> dict[str, Array | np.ndarray]:
        """Returns `State.opt` for a native optimizer state."""
        return flatten(self._canonical(state), self.name)

    def write(
        self, state: optax.OptState, arrays: Mapping[str, Any]
    ) -> optax.OptState:
        """Returns a native optimizer state that holds `State.opt`.

        Args:
            state: a state of the same structure and dtypes.
            arrays: as `read` returns them.
        """
        restored = unflatten(self._canonical(state), arrays, self.name)
        if self.native_order:
            return self.layouts.from_canonical(restored)
        return restored

    def _takes_layers_alike(
        self, names: Mapping[str, Any], first: Mapping[str, Any]
    ) -> bool:
        """Tells whether a stack of layers may be shown as one array."""
        update = with_arguments(self.optimizer, self.arguments)
        return is_same_in_layers(
            update,
            operands_of(self.optimizer, names),
            operands_of(self.optimizer, first),
            names,
            self.stacks,
        )

    def _update_stacks(self, updates, state, params, extra):
        """Updates the parameters of all layers of a stack at once."""
        arrays = {k: x for k, x in extra.items() if not callable(x)}
        functions = {k: f for k, f in extra.items() if callable(f)}

        def update(updates, state, params, arrays):
            return self.optimizer.update(
                updates, state, params, **arrays, **functions
            )

        mapped = under_vmap(update, self.stacks)
        return mapped(updates, state, params, arrays)

    def _canonical(self, state: optax.OptState) -> Any:
        if self.native_order:
            return self.layouts.to_canonical(state)
        return state

    def _select(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the extra arguments as the optimizer expects them."""
        arguments = dict(arguments)
        value_fn = arguments.pop("value_fn", None)
        found = {name: self._show(x) for name, x in arguments.items()}
        if value_fn is not None:
            found |= functions_of(lambda named: value_fn(self._restore(named)))
        return {k: x for k, x in found.items() if k in self.arguments}


def commutes(
    optimizer: optax.GradientTransformationExtraArgs,
    canonical: Mapping[str, Any],
    native: Mapping[str, Any],
    arguments: tuple[str, ...],
) -> bool:
    """Returns whether an optimizer may see arrays in native axis order.

    It may if the update does not depend on the order, and if each array of
    its state has the shape of its parameter or belongs to no parameter.

    Args:
        optimizer: accepts the extra arguments.
        canonical: the parameters in canonical axis order; only shapes and
            dtypes are used.
        native: the same in native axis order.
        arguments: names of the extra arguments.
    """
    operands = [operands_of(optimizer, x) for x in (canonical, native)]
    by_name = (
        _is_by_name(operands[0][1], canonical),
        _is_by_name(operands[1][1], native),
    )
    return all(by_name) and is_equivariant(
        with_arguments(optimizer, arguments), *operands, names=canonical
    )


def _is_by_name(state: Any, params: Mapping[str, Any]) -> bool:
    """Returns whether each array fits a parameter, or belongs to none."""

    def has_names(x):
        return isinstance(x, dict) and not params.keys().isdisjoint(x)

    def fits(name, x):
        leaves = jax.tree.leaves(x)  # none below a `MaskedNode`
        return not leaves or getattr(x, "shape", None) == params[name].shape

    nodes = filter(has_names, jax.tree.leaves(state, is_leaf=has_names))
    return all(
        node.keys() == params.keys()
        and all(fits(name, x) for name, x in node.items())
        for node in nodes
    )


def flatten(state: Any, name: str) -> dict[str, Array | np.ndarray]:
    """Flattens an optimizer state over named parameters into `State.opt`.

    Typed random keys become their key data.

    Args:
        state: any pytree of arrays.
        name: the first word of the keys.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        _key(name, path): jr.key_data(leaf) if is_key(leaf) else leaf
        for path, leaf in leaves
    }


def unflatten(like: Any, arrays: Mapping[str, Any], name: str) -> Any:
    """Inverts `flatten`, given a state of the same structure and dtypes."""

    def restore(path, leaf):
        x = arrays[_key(name, path)]
        if is_key(leaf):
            x = jnp.asarray(x, jnp.uint32)
            return jr.wrap_key_data(x, impl=jr.key_impl(leaf))
        on_host = isinstance(leaf, np.ndarray)
        return (np if on_host else jnp).asarray(x, leaf.dtype)

    return jax.tree_util.tree_map_with_path(restore, like)


def require_optimizer(optimizer: Any) -> None:
    """Checks that something is an optax transformation.

    Raises:
        ValueError: telling what it is instead.
    """
    methods = (getattr(optimizer, name, None) for name in ("init", "update"))
    if isinstance(optimizer, type) or not all(map(callable, methods)):
        got = getattr(optimizer, "__name__", repr(optimizer))
        raise ValueError(
            f"optimizer: got {got} of type {type(optimizer).__name__}, "
            "expected an optax.GradientTransformation. Make one, as in "
            "`optax.adam(1e-3)`."
        )


def require_optimizers(optimizer: Any) -> Any:
    """Returns an optimizer, or a dict of them by the part that each trains.

    Raises:
        ValueError: if something else is in their place.
    """
    if isinstance(optimizer, Mapping):
        for one in optimizer.values():
            require_optimizer(one)
        return dict(optimizer)
    require_optimizer(optimizer)
    return optimizer


def _key(name: str, path: tuple[Any, ...]) -> str:
    words = (jax.tree_util.keystr((x,), simple=True) for x in path)
    return ".".join([name, *words])
