"""Ports the arrays of one model to another."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from common.porting.endpoints import Native, read_source
from common.porting.moments import carry
from common.porting.plan import Plan
from common.porting.planning import make_plan
from common.porting.values import (
    choose_dtypes,
    make,
    require_places,
    require_values,
)
from common.registry import find_porting
from common.tensors import Stored

TOGETHER = 2**26
"""Bytes of new arrays that are written into a module together."""


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

    A safetensors file is read one array at a time, and each goes straight to
    the devices of the target's array. So a model that fits on the devices can
    be filled, also if it does not fit twice: pass an abstract one, with a
    sharding in each `jax.ShapeDtypeStruct` if it is to be split.

    Args:
        source: an Equinox model, a pair of a model and its state, or an NNX
            module; the pair of one of these and its optimizer,
            `(model, opt_state)` or `(module, optimizer)`; a `State`; a mapping
            of names to arrays, as a `state_dict` of PyTorch; or the path of a
            safetensors file, or of the `model.safetensors.index.json` of
            several; of an `.eqx` file, an Orbax checkpoint of
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
        optimizer are filled in place. If the source is a safetensors file,
        the old arrays of a module are freed as they are replaced.

    Raises:
        ValueError: naming every array that has no counterpart, does not fit,
            is rounded, or holds NaN. Nothing has been changed then.
        TypeError: if the source or the target is of no known form.
    """
    given = read_source(source, like)
    target = Native.of(into)
    home = find_porting(target.library)
    frees = (
        home.FILLS_IN_PLACE
        and isinstance(given.arrays, Stored)
        and target.optimizer is None
    )
    if frees:
        # It does not refer to the arrays that are to be freed.
        target = Native.of(home.hollow(into))
    plan = make_plan(
        given,
        target.side("target"),
        rules=rules,
        ignore=ignore,
        keep=keep,
        batch_norm=batch_norm,
        flatten=flatten,
    )
    old = target.arrays()
    require_values(given, plan)
    dtypes = choose_dtypes(given, plan, dtype)
    require_places(dtypes, old)
    moments = carry(given, target, plan.layouts, plan.copies)
    paths = {a.dotted: a.path for a in target.layouts.arrays}
    made = (
        (paths[name], make(name, plan, given.arrays, wanted, old[name]))
        for name, wanted in dtypes.items()
    )
    if frees:
        return _fill(into, target, made)
    return _write(target, dict(made), moments)


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


def _fill(module: Any, target: Native, made: Iterator[tuple[str, Any]]) -> Any:
    """Writes arrays into a module in place while others are still made.

    All checks have passed. So the old arrays are freed as they are replaced.
    """
    waiting: dict[str, Any] = {}
    size = 0
    try:
        for path, x in made:
            waiting[path] = x
            size += math.prod(x.shape) * x.dtype.itemsize
            if size > TOGETHER:
                target.layouts.replace(module, waiting)
                waiting, size = {}, 0
            del x
        return target.layouts.replace(module, waiting)
    except BaseException as error:
        error.add_note(
            "Some arrays of the module are new, and others are old. Call "
            "`port` again, or construct the module again."
        )
        raise


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
