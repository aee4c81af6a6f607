"""Ports the arrays of one model to another."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.porting.arrays import on_host
from common.porting.endpoints import Given, Native, place, read_source
from common.porting.folding import fold
from common.porting.moments import carry
from common.porting.plan import Plan
from common.porting.planning import make_plan
from common.registry import find_porting

ABSTRACT = jax.ShapeDtypeStruct


def port(
    source: Any,
    into: Any,
    *,
    rules: Any = None,
    ignore: Iterable[str] = (),
    keep: Iterable[str] = (),
    batch_norm: str | None = None,
    dtype: Any = None,
    like: Any = None,
    flatten: Mapping[str, tuple[int, ...]] | None = None,
) -> Any:
    """Carries the arrays of one model into another.

    Arrays match by their path where the fields and indices of both sides are
    the same, and the types of their layers say how each is rearranged.
    Everything else needs a rule, or the port is refused before anything is
    written. See `plan_port` for the plan.

    Args:
        source: an Equinox model, a pair of a model and its state, or an NNX
            module; the pair of one of these and its optimizer,
            `(model, opt_state)` or `(module, optimizer)`; a `State`; a mapping
            of names to arrays, as a `state_dict` of PyTorch; or the path of a
            safetensors file, an `.eqx` file, an Orbax checkpoint of
            `nnx.state(...)`, or Flax msgpack. It is never changed.
        into: a native model, with or without its optimizer. Each of its
            arrays may be a `jax.ShapeDtypeStruct`.
        rules: a `Plan`, what `align` returned, text, or a dict of text.
        ignore: names of source arrays and modules that go nowhere.
        keep: names of target arrays and modules to leave alone.
        batch_norm: `"resume"` if training is to continue identically, or
            `"serve"` if inference is to be identical. It must be given where
            one copy of the running statistics cannot serve both.
        dtype: `None` refuses to round values to a narrower dtype; `"target"`
            rounds them; `"source"` gives the target the source's dtypes; any
            other floating dtype is given to all floating arrays.
        like: a model of the structure that was written, for files and
            mappings whose names do not tell it.
        flatten: for each layer of the target after a flatten, the (height,
            width, channels) of what is flattened.

    Returns:
        What was passed as `into`, with the new arrays. An NNX module and its
        optimizer are filled in place.

    Raises:
        ValueError: naming every array that has no counterpart, does not fit,
            is rounded, or holds NaN.
        TypeError: if the source or the target is of no known form.
    """
    target = Native.of(into)
    given = read_source(source, like)
    plan = make_plan(
        given,
        target.side("target"),
        rules=rules,
        ignore=ignore,
        keep=keep,
        batch_norm=batch_norm,
        flatten=flatten,
    )
    _require_values(given, plan)
    old = target.arrays()
    made = _cast(plan.apply(on_host(given.arrays)), plan, dtype)
    paths = {a.dotted: a.path for a in target.layouts.arrays}
    new = {paths[name]: place(x, old[name]) for name, x in made.items()}
    _require_dtypes(made, {name: new[paths[name]] for name in made})
    moments = carry(given, target, plan.layouts, plan.copies)
    return _write(target, new, moments)


def plan_port(
    source: Any,
    into: Any,
    *,
    rules: Any = None,
    ignore: Iterable[str] = (),
    keep: Iterable[str] = (),
    batch_norm: str | None = None,
    like: Any = None,
    flatten: Mapping[str, tuple[int, ...]] | None = None,
) -> Plan:
    """Returns the plan that `port` would follow, and writes nothing.

    Each array of both sides may be a `jax.ShapeDtypeStruct`.

    Args:
        source: as for `port`, like all other arguments.
        into: the native model that would be filled.
        rules: the mapping of the arrays whose names differ.
        ignore: names of source arrays and modules that go nowhere.
        keep: names of target arrays and modules to leave alone.
        batch_norm: what the running statistics are carried over for.
        like: the model that wrote the source, if that is a file.
        flatten: the shapes of flattened images, by the layer after them.

    Raises:
        ValueError: naming every array that has no counterpart.
    """
    return make_plan(
        read_source(source, like),
        Native.of(into).side("target"),
        rules=rules,
        ignore=ignore,
        keep=keep,
        batch_norm=batch_norm,
        flatten=flatten,
    )


def _require_values(given: Given, plan: Plan) -> None:
    """Checks that the source has values, none of which is NaN."""
    used = sorted({s.name for x in plan.layouts.values() for s in x.sources})
    empty = [n for n in used if isinstance(given.arrays[n], ABSTRACT)]
    if empty:
        raise ValueError(
            fold(f"source: got shapes without values for {empty}")
            + ", expected arrays. Pass a model that holds its weights, or "
            "call `plan_port`."
        )
    undefined = [name for name in used if _has_nan(given.arrays[name])]
    if undefined:
        raise ValueError(
            fold(f"source: got NaN in {undefined}")
            + ", expected numbers. Port the weights from before the run "
            "diverged, or ignore these arrays."
        )


def _has_nan(x: Any) -> bool:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return False
    return bool(np.isnan(np.asarray(x)).any())


def _cast(arrays: Mapping[str, Any], plan: Plan, dtype: Any) -> dict[str, Any]:
    """Gives each array the dtype that it is to have.

    Raises:
        ValueError: naming the arrays whose values would change.
    """
    chosen = None if dtype in (None, "target", "source") else jnp.dtype(dtype)
    made, problems = {}, []
    for name, x in arrays.items():
        wanted: Any = plan.target[name].dtype
        if str(x.dtype) == wanted and chosen is None:
            made[name] = x
            continue
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            problems.append(f"{name} of {x.dtype} against {wanted}")
            continue
        wanted = jnp.dtype(wanted)
        both_float = jnp.issubdtype(x.dtype, jnp.inexact) and (
            jnp.issubdtype(wanted, jnp.inexact)
        )
        if both_float and chosen is not None:
            wanted = chosen
        elif both_float and dtype == "source":
            wanted = x.dtype
        elif both_float:
            widens = jnp.promote_types(x.dtype, wanted) == wanted
            if not widens and dtype is None:
                problems.append(f"{name} of {x.dtype} against {wanted}")
                continue
        elif not np.array_equal(np.asarray(x).astype(wanted), np.asarray(x)):
            problems.append(f"{name} of {x.dtype} against {wanted}")
            continue
        made[name] = x.astype(wanted)
    if problems:
        raise ValueError(
            fold(f"dtype: got {', '.join(problems)}")
            + ", expected values that the target's dtype holds exactly. Pass "
            "dtype='target' to round them, or dtype='source' to give the "
            "target the source's dtypes."
        )
    return made


def _require_dtypes(
    wanted: Mapping[str, Any], made: Mapping[str, Any]
) -> None:
    """Checks that JAX has not narrowed an array."""
    narrowed = [n for n, x in wanted.items() if x.dtype != made[n].dtype]
    if narrowed:
        raise ValueError(
            fold(f"dtype: got {made[narrowed[0]].dtype} for {narrowed}")
            + f", expected {wanted[narrowed[0]].dtype}. Enable it with "
            '`jax.config.update("jax_enable_x64", True)`.'
        )


def _write(target: Native, new: dict[str, Any], moments: Any) -> Any:
    """Writes all arrays, or none of them."""
    home = find_porting(target.library)
    before = target.layouts.flatten(target.model)
    try:
        model = target.layouts.replace(target.model, new)
        optimizer = target.optimizer
        if moments is not None:
            optimizer = home.write_optimizer(optimizer, *moments)
    except BaseException:
        # An NNX module is changed in place.
        target.layouts.replace(target.model, before)
        raise
    return target.rebuilt(model, optimizer)
