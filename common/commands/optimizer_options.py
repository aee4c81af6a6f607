"""`--optimizer` and `--learning-rate` of `train`."""

import argparse
import math

import optax

from common.errors import choose

DEFAULT_RATE = 1e-3
NAME = "--optimizer"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--optimizer NAME` and `--learning-rate X`."""
    parser.add_argument(
        NAME,
        metavar="NAME",
        help="an optimizer of optax that needs a learning rate only, such as "
        "adam, adamw, sgd or lion (default: that of the resumed file, or of "
        "the model)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help="the learning rate of the optimizer (default: that of the "
        f"resumed file or of the model, or {DEFAULT_RATE:g} with --optimizer)",
    )


def choose_optimizer(
    options: argparse.Namespace, current: optax.GradientTransformation
) -> optax.GradientTransformation | None:
    """Returns the optimizer that the options name, or `None` without any.

    Args:
        options: with `optimizer` and `learning_rate`.
        current: the optimizer of the model, or of the resumed run.

    Raises:
        ValueError: if there is no such optimizer, it does not take this
            learning rate, or the current optimizer has no name to build it
            with another rate.
    """
    from common.training.identity import describe
    from common.training.recorded_optimizers import MAKERS, find_named

    name, rate = options.optimizer, options.learning_rate
    if name is None and rate is None:
        return None
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"--learning-rate: got {rate:g}, expected a positive number. "
            f"Write one such as {DEFAULT_RATE:g}."
        )
    if name is None:
        known = find_named(describe(current))
        if known is None:
            raise ValueError(
                f"--learning-rate: got {rate:g} for the optimizer "
                f"{describe(current)}, expected one that has a single "
                "learning rate. Name another one with --optimizer."
            )
        name = known.name
    if name not in MAKERS:
        raise choose(NAME, name, MAKERS)
    try:
        return MAKERS[name](DEFAULT_RATE if rate is None else rate)
    except ValueError as error:
        raise ValueError(
            f"--learning-rate: got {rate:g}, expected one that optax.{name} "
            f"takes ({error}). Try {DEFAULT_RATE:g}."
        ) from error


def require_same(
    options: argparse.Namespace,
    saved: optax.GradientTransformation,
    chosen: optax.GradientTransformation | None,
) -> str | None:
    """Compares the options with the optimizer of a resumed run.

    Args:
        options: with `optimizer` and `resume`.
        saved: the optimizer of the run.
        chosen: what `choose_optimizer` returned.

    Returns:
        A note that the learning rate changes, if it does.

    Raises:
        ValueError: if it is another optimizer, whose state is not in the
            file.
    """
    from common.training.identity import describe
    from common.training.recorded_optimizers import find_named

    if chosen is None or describe(chosen) == describe(saved):
        return None
    old, new = find_named(describe(saved)), find_named(describe(chosen))
    if old is None or new is None or old.name != new.name:
        expected = describe(saved) if old is None else old.name
        raise ValueError(
            f"{NAME}: got {options.optimizer!r}, expected {expected!r} as "
            f"in {str(options.resume)!r}. Leave {NAME} out when you resume."
        )
    return (
        f"note: {options.resume} was trained with {old.name} and learning "
        f"rate {old.rate:g}; the run continues with {new.rate:g}."
    )
