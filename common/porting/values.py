"""The values of a port: checked first, and then made one array at a time."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.layouts import Cast, KeyData, Layout, WrapKeyData
from common.layouts.model import is_key
from common.porting.arrays import Infos, on_host
from common.porting.copies import require_copies
from common.porting.endpoints import Given
from common.porting.folding import fold
from common.porting.placement import fill_from, place, place_filled
from common.porting.plan import Plan
from common.tensors import has_nan

ABSTRACT = jax.ShapeDtypeStruct


def require_values(given: Given, plan: Plan) -> None:
    """Checks the values of a source, one array at a time.

    Raises:
        ValueError: naming the arrays that have no values, or have NaN in
            them, or hold other values than those that they are copies of.
    """
    arrays = given.arrays
    used = sorted({s.name for x in plan.layouts.values() for s in x.sources})
    empty = [name for name in used if isinstance(arrays[name], ABSTRACT)]
    if empty:
        raise ValueError(
            fold(f"source: got shapes without values for {empty}")
            + ", expected arrays. Pass a model that holds its weights, or "
            "call `plan_port`."
        )
    undefined = [name for name in used if _has_nan(arrays[name])]
    if undefined:
        raise ValueError(
            fold(f"source: got NaN in {undefined}")
            + ", expected numbers. Port the weights from before the run "
            "diverged, or ignore these arrays."
        )
    for name, layout in plan.copies.items():
        names = {name, *(source.name for source in layout.sources)}
        require_copies({name: layout}, _taken(arrays, names))


def _has_nan(x: Any) -> bool:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return False
    return has_nan(np.asarray(x))


def choose_dtypes(given: Given, plan: Plan, dtype: Any) -> dict[str, Any]:
    """Returns the dtype that each array of the target is to have.

    Args:
        given: the source.
        plan: the plan.
        dtype: as for `port`.

    Raises:
        ValueError: naming the arrays whose values would change.
    """
    chosen = None if dtype in (None, "target", "source") else jnp.dtype(dtype)
    found: dict[str, Any] = {}
    problems = []
    for name in [*plan.layouts, *plan.derived]:
        wanted: Any = plan.target[name].dtype
        own = wanted
        if name in plan.layouts:
            own = _dtype(plan.layouts[name], plan.source)
        if own == wanted and (chosen is None or own.startswith("key")):
            found[name] = wanted
            continue
        if "key" in own + wanted:
            problems.append(f"{name} of {own} against {wanted}")
            continue
        own, wanted = jnp.dtype(own), jnp.dtype(wanted)
        both_float = jnp.issubdtype(own, jnp.inexact) and (
            jnp.issubdtype(wanted, jnp.inexact)
        )
        if both_float and chosen is not None:
            wanted = chosen
        elif both_float and dtype == "source":
            wanted = own
        elif both_float:
            if dtype is None and not np.can_cast(own, wanted):
                problems.append(f"{name} of {own} against {wanted}")
                continue
        elif own != wanted and not _holds(name, plan, given.arrays, wanted):
            problems.append(f"{name} of {own} against {wanted}")
            continue
        found[name] = wanted
    if problems:
        raise ValueError(
            fold(f"dtype: got {', '.join(problems)}")
            + ", expected values that the target's dtype holds exactly. Pass "
            "dtype='target' to round them, or dtype='source' to give the "
            "target the source's dtypes."
        )
    return found


def _dtype(layout: Layout, infos: Infos) -> str:
    """Returns the name of the dtype of what a layout makes."""
    names = {
        _dtype(part, infos)
        if isinstance(part, Layout)
        else infos[part.name].dtype
        for part in layout.inputs
    }
    name = names.pop()
    if names:
        name = np.result_type(*map(jnp.dtype, (name, *names))).name
    for step in layout.steps:
        match step:
            case Cast(target=target):
                name = target
            case KeyData():
                name = "uint32"
            case WrapKeyData(impl=impl):
                name = _key_dtype(impl)
    return name


def _key_dtype(impl: str) -> str:
    return str(jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype)


def _holds(
    name: str, plan: Plan, arrays: Mapping[str, Any], dtype: Any
) -> bool:
    """Tells whether a dtype holds an array of the target exactly."""
    layout = plan.layouts[name]
    names = (source.name for source in layout.sources)
    x = np.asarray(layout.apply(_taken(arrays, names)))
    return np.array_equal(x.astype(dtype), x)


def require_places(dtypes: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Checks that JAX will neither narrow an array nor fail to split it.

    Args:
        dtypes: of the arrays that will be made, by name.
        old: the arrays of the target, by name.

    Raises:
        ValueError: naming the array.
    """
    for name in dtypes:
        sharding = getattr(old[name], "sharding", None)
        if sharding is None:
            continue
        try:
            sharding.shard_shape(tuple(old[name].shape))
        except ValueError as error:
            raise ValueError(
                f"target {name!r} {tuple(old[name].shape)}: got {sharding}, "
                f"which does not divide it ({error}), expected a sharding of "
                "axes that the devices divide. Split another axis."
            ) from error
    narrowed: dict[str, Any] = {}
    for name, dtype in dtypes.items():
        if is_key(old[name]) or isinstance(old[name], np.ndarray):
            continue
        narrow = jax.dtypes.canonicalize_dtype(dtype)
        if narrow != dtype:
            narrowed[name] = narrow
    if narrowed:
        first = next(iter(narrowed))
        raise ValueError(
            fold(f"dtype: got {narrowed[first]} for {list(narrowed)}")
            + f", expected {dtypes[first]}. Enable it with "
            '`jax.config.update("jax_enable_x64", True)`.'
        )


def make(
    name: str, plan: Plan, arrays: Mapping[str, Any], dtype: Any, old: Any
) -> Any:
    """Makes one array of the target, where the old one is.

    Args:
        name: of the array.
        plan: the plan.
        arrays: the source's arrays by name.
        dtype: the dtype that it is to have.
        old: the array of the target, or a `jax.ShapeDtypeStruct`.
    """
    info = plan.target[name]
    if name in plan.derived:
        value = np.asarray(plan.derived[name], info.dtype)
        return place(np.broadcast_to(value, info.shape).astype(dtype), old)
    layout = plan.layouts[name]
    taken = _taken(arrays, (source.name for source in layout.sources))
    on_device = not all(isinstance(x, np.ndarray) for x in taken.values())
    small = not info.shape or isinstance(old, np.ndarray)
    if on_device or small or str(dtype).startswith("key"):
        x = layout.apply(taken)
        same = is_key(x) or x.dtype == dtype
        return place(x if same else x.astype(dtype), old)

    def fill(out, window):
        fill_from(out, window, layout, taken)

    sharding = getattr(old, "sharding", None)
    return place_filled(fill, info.shape, jnp.dtype(dtype), sharding)


def _taken(arrays: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return on_host({name: arrays[name] for name in names})
