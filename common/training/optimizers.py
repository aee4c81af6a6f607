"""optax optimizers on parameters keyed by canonical name.

Masks and labels are functions of the parameter tree, and every library has a
different tree. Here each optimizer sees the same one: a flat dict by
canonical name. Its arrays have the library's own axis order where that makes
no difference to the optimizer, and canonical axis order otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from common.protocol import Arrays
from common.training.equivariance import is_equivariant
from common.training.leaves import is_key

OPTIMIZER = "optimizer"
"""First word of the keys in `State.opt`."""

ARGUMENTS = (
    ("value", "grad", "value_fn"),
    ("value", "grad", "value_fn", "obj_fn"),
    ("grad_fn",),
)
"""Extra arguments of `update`, in the combinations that are tried in turn.

Most of optax accepts and ignores the first. `sophia` requires `obj_fn`, which
the line searches reject, and `sam` accepts `grad_fn` only.
"""


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


class CanonicalLayouts:
    """The layouts of parameters that are canonical already."""

    def to_names(self, tree: Any) -> Any:
        return tree

    to_native = to_canonical = from_canonical = to_names


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
        self.arguments = accepted_arguments(self.optimizer, canonical)
        self.native_order = isinstance(layouts, CanonicalLayouts) or commutes(
            self.optimizer, canonical, names, self.arguments
        )
        if self.native_order:
            self._show, self._restore = layouts.to_names, layouts.to_native
        else:
            self._show = layouts.to_canonical
            self._restore = layouts.from_canonical

    def init(self, params: Any) -> optax.OptState:
        """Returns the initial state for a library's parameters."""
        state = self.optimizer.init(self._show(params))
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
        updates, state = self.optimizer.update(
            self._show(updates),
            state,
            self._show(params),
            **self._select(arguments),
        )
        if self.native_order:
            state = self._restore(state)
        return self._restore(updates), state

    def read(self, state: optax.OptState) -> Arrays:
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


def functions_of(value_fn: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns the arguments of `update` that are functions of the loss."""

    def grad_fn(params, step=None):
        del step  # of an inner loop; all of its steps are on the same batch
        return jax.grad(value_fn)(params)

    return {"value_fn": value_fn, "obj_fn": value_fn, "grad_fn": grad_fn}


def accepted_arguments(
    optimizer: optax.GradientTransformationExtraArgs, params: Mapping[str, Any]
) -> tuple[str, ...]:
    """Returns the names of the extra arguments that an optimizer accepts.

    The signature cannot be used, because a chain accepts any argument.
    Instead, the optimizer is traced with each combination in turn.

    Args:
        optimizer: accepts extra arguments.
        params: by canonical name; only shapes and dtypes are used.

    Raises:
        ValueError: if the optimizer cannot be traced with any of them.
    """
    errors: list[Exception] = []
    for arguments in ARGUMENTS:
        try:
            updates, _ = jax.eval_shape(
                with_arguments(optimizer, arguments),
                *operands_of(optimizer, params),
            )
        except Exception as error:  # an optimizer may raise anything
            errors.append(error)
        else:
            _require_shapes(updates, params)
            return arguments
    raise ValueError(
        f"optimizer: got {type(errors[0]).__name__} ({errors[0]}) from its "
        "`init` or `update`, expected it to accept gradients, state and "
        "parameters as flat dicts by canonical name, and the extra arguments "
        "`value`, `grad` and `value_fn`. Masks and labels must be functions "
        "of such a dict."
    ) from errors[0]


def _require_shapes(
    updates: Mapping[str, Any], params: Mapping[str, Any]
) -> None:
    for name, x in params.items():
        if updates[name].shape != x.shape:
            raise ValueError(
                f"optimizer update of {name!r}: got shape "
                f"{updates[name].shape}, expected {x.shape}. The optimizer "
                "receives one gradient for the whole batch; use one that "
                "does not expect a gradient for each example."
            )


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


def operands_of(
    optimizer: optax.GradientTransformationExtraArgs, params: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Returns shapes of the gradients, state, parameters and loss."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    state = jax.eval_shape(optimizer.init, params)
    return params, state, params, jax.ShapeDtypeStruct((), dtype)


def with_arguments(
    optimizer: optax.GradientTransformationExtraArgs,
    arguments: tuple[str, ...],
) -> Callable[..., Any]:
    """Returns `update` as a function of arrays alone."""

    def value_fn(params):
        # Stands in for the loss, which depends on all parameters, but not on
        # the order of their axes.
        return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))

    def update(updates, state, params, value):
        found = {"value": value, "grad": updates, **functions_of(value_fn)}
        return optimizer.update(
            updates, state, params, **{k: found[k] for k in arguments}
        )

    return update


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


def flatten(state: Any, name: str) -> Arrays:
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
        return jnp.asarray(x, leaf.dtype)

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
