"""Mixed precision: whether a trainer computes in the dtypes that it should.

Backends that compute in different dtypes may still agree within rounding, so
the traced programs are read as well.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.agreement import EPS
from common.comparison.frames import frame_of
from common.training.trainer import Trainer

PRODUCTS = {"dot_general", "conv_general_dilated"}
MOVES = {
    "broadcast_in_dim",
    "copy",
    "copy_p",
    "dynamic_slice",
    "expand_dims",
    "rev",
    "reshape",
    "slice",
    "squeeze",
    "transpose",
}
"""Operations whose result holds elements of their operand."""


def in_float32(trainer: Trainer) -> Trainer:
    """Returns a trainer of the same run that computes in float32."""
    return _rebuilt(
        trainer,
        trainer.optimizer,
        trainer.backend.loss,
        dataclasses.replace(trainer.settings, compute_dtype=None),
    ).load(trainer.state())


def find_wrong_dtypes(trainer: Trainer, xs: Any, ys: Any) -> list[str]:
    """Finds where a trainer does not compute as mixed precision says.

    Matrix products and convolutions must compute in the compute dtype, in
    both passes. Parameters of norms and all statistics must not be rounded to
    it. The loss, the metrics and the optimizer are left out, since they
    compute in float32.

    Args:
        trainer: a trainer of a spec with a compute dtype.
        xs: a batch of inputs.
        ys: the targets.

    Returns:
        One line for each operation or array.
    """
    dtype: Any = trainer.settings.compute_dtype
    probe = _rebuilt(trainer, optax.sgd(1.0), _total, trainer.settings)
    arrays = probe.state().flat()

    def predict(arrays, batch):
        leaves = probe.pure.load(probe.leaves, arrays)
        return probe.pure.predict(leaves, batch[0])

    wide = {
        f"{'params' if variable.trainable else 'buffers'}.{name}"
        for name, variable in trainer.spec.variables().items()
        if variable.wide or not variable.trainable
    }
    found: dict[str, None] = {}
    for function in (probe.pure_transition, predict):
        jaxpr = jax.make_jaxpr(function)(arrays, (xs, ys))
        # A dict is flattened in the order of its keys.
        names = dict(zip(jaxpr.jaxpr.invars, sorted(arrays), strict=False))
        kept = {x: name for x, name in names.items() if name in wide}
        found |= dict.fromkeys(_walk(jaxpr.jaxpr, dtype, kept, ""))
    return list(found)


def _rebuilt(
    trainer: Trainer, optimizer: Any, loss: Any, settings: Any
) -> Trainer:
    return Trainer(
        trainer.subject,
        optimizer=optimizer,
        loss=loss,
        metrics={},
        seed=trainer.seed,
        settings=settings,
    )


def _total(predictions: Any, targets: Any) -> Any:
    """A loss without products."""
    del targets
    return sum(jnp.sum(x) for x in jax.tree.leaves(predictions))


def _walk(
    jaxpr: Any, dtype: str, kept: dict[Any, str], outer: str
) -> Iterator[str]:
    """Yields what is wrong in a jaxpr and its inner ones.

    Args:
        jaxpr: an open jaxpr.
        dtype: the compute dtype.
        kept: the names of arrays that must not be rounded, by variable. The
            variables that hold their elements are added.
        outer: the source line that calls the jaxpr.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        line = frame_of(equation.source_info) or outer
        place = f" at {line}" if line else ""
        if _is_matrix_product(equation):
            dtypes = {x.aval.dtype.name for x in equation.invars}
            if dtypes != {dtype}:
                yield f"{name} of {' and '.join(sorted(dtypes))}{place}"
        source = next(
            (kept[x] for x in equation.invars if _hashable(x) and x in kept),
            None,
        )
        if name == "convert_element_type" and source is not None:
            to = equation.outvars[0].aval.dtype.name
            if EPS.get(to, 0.0) > EPS["float32"]:
                yield f"{source} cast to {to}{place}"
        if source is not None and name in {*MOVES, "convert_element_type"}:
            kept[equation.outvars[0]] = source
        for inner in _inner(equation):
            # The first operands of some are not those of the inner jaxpr.
            inner_kept = {
                x: kept[y]
                for x, y in zip(
                    reversed(inner.invars),
                    reversed(equation.invars),
                    strict=False,
                )
                if _hashable(y) and y in kept
            }
            yield from _walk(inner, dtype, inner_kept, line)
            if len(inner.outvars) == len(equation.outvars):
                for x, y in zip(inner.outvars, equation.outvars, strict=True):
                    if _hashable(x) and x in inner_kept:
                        kept[y] = inner_kept[x]


def _is_matrix_product(equation: Any) -> bool:
    """Tells products of matrices from those of a matrix and a vector.

    The latter are those of a power iteration, which computes a statistic.
    """
    if equation.primitive.name not in PRODUCTS:
        return False
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name != "dot_general":
        return True
    return all(
        len(x.aval.shape) - len(batch) >= 2
        for x, batch in zip(equation.invars, numbers[1], strict=True)
    )


def _inner(equation: Any) -> list[Any]:
    """Returns the open jaxprs that an equation calls."""
    found = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    )
    return [getattr(x, "jaxpr", x) for x in found if hasattr(x, "eqns")]


def _hashable(variable: Any) -> bool:
    """Tells variables from literals."""
    return not hasattr(variable, "val")
