"""Measures batch norm over training in each dialect, and its rounding."""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plots
from flax import nnx
from tables import table

from common import registry
from common.layers import BATCH_NORM_DIALECTS
from common.rendering.files import to_json
from common.training.building import build
from common.training.trainer import Trainer

FEATURES, ROWS = 4, 64
MOMENTUM, EPS = 0.99, 1e-5
SHIFT = 4096.0
"""Makes the input of every relu positive, and is subtracted exactly."""

Curve = dict[int, float]


def pages() -> dict[str, str]:
    """Returns the generated files, measured for each dialect and backend."""
    trainers = {
        dialect: [_norm(name, dialect) for name in registry.backends()]
        for dialect in BATCH_NORM_DIALECTS
    }
    steps = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    variances = _measure(
        trainers, lambda trainer: _inference_variance(trainer, 500)
    )
    means = _measure(
        trainers, lambda trainer: _training_outputs(trainer, "mean", 501)
    )
    deviations = _measure(
        trainers, lambda trainer: _training_outputs(trainer, "deviation", 501)
    )
    formulas = variance_formulas()
    calls = [1, 2, 3, 11, 101, 301, 501]
    return {
        "inference_variance.md": _dialect_table("steps", variances, steps),
        "inference_variance.svg": plots.lines(
            variances.curves,
            x="training steps",
            y="variance that inference divides by",
            wanted=4.0,
            log=True,
        ),
        "training_mean.md": _dialect_table("training call", means, calls),
        "training_deviation.md": _dialect_table(
            "training call", deviations, calls
        ),
        "training_mean.svg": plots.lines(
            means.curves,
            x="training calls",
            y="mean of the output in training",
            wanted=0.0,
        ),
        "variance_formulas.md": _figure(
            plots.lines(
                formulas,
                x="mean of the data, whose standard deviation is 1",
                y="largest error of a normalized value",
                wanted=float(np.finfo(np.float32).eps),
                log=True,
            )
        ),
        "batch_norm.json": to_json(
            {
                "inference_variance": variances,
                "training_mean": means,
                "training_deviation": deviations,
                "variance_formulas": formulas,
            }
        ),
    }


def _figure(svg: str) -> str:
    return f"```{{raw}} html\n{svg.strip()}\n```\n"


class Measured(typing.NamedTuple):
    """A number over training, for each dialect.

    Attributes:
        curves: the number in the reference backend, by dialect and by step.
        max_error: the largest absolute error of another backend.
    """

    curves: dict[str, Curve]
    max_error: float


def _measure(
    trainers: dict[str, list[Trainer]], read: Callable[[Trainer], Curve]
) -> Measured:
    curves, errors = {}, []
    for dialect, group in trainers.items():
        curve, *others = (read(trainer) for trainer in group)
        curves[dialect] = curve
        errors += [
            abs(other[step] - curve[step])
            for other in others
            for step in curve
        ]
    return Measured(curves, max(errors))


def _norm(backend: str, dialect: str) -> Trainer:
    """Builds a model whose only operation is a BatchNorm."""
    trainer = build(
        "deep_mlp",
        backend=backend,
        depth=1,
        size=FEATURES,
        batch_norm=dialect,
        momentum=MOMENTUM,
        eps=EPS,
        dtype="float64",
        optimizer=optax.sgd(0.0),
        metrics={
            "mean": lambda predictions, targets: jnp.mean(predictions),
            "deviation": lambda predictions, targets: jnp.std(predictions),
        },
    )
    state = trainer.state()
    identity = np.eye(FEATURES)
    shift = np.full(FEATURES, SHIFT)
    params = {
        "blocks.0.linear.weight": identity,
        "blocks.0.norm.weight": np.ones(FEATURES),
        "blocks.0.norm.bias": shift,
        "head.weight": identity,
        "head.bias": -shift,
    }
    return trainer.load(dataclasses.replace(state, params=params))


def _batch(mean: float, deviation: float) -> np.ndarray:
    """Returns a batch with exactly this mean and standard deviation."""
    xs = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    xs = (xs - xs.mean(0)) / xs.std(0)
    return mean + deviation * xs


def _inference_variance(trainer: Trainer, steps: int) -> Curve:
    """Trains on one batch, and returns the variance that inference uses."""
    start, xs = trainer.state(), _batch(0.0, 2.0)
    probe = np.stack([np.zeros(FEATURES), np.ones(FEATURES)])
    curve = {}
    for step in range(steps + 1):
        if step:
            trainer.step(xs, xs)
        low, high = np.asarray(trainer.predict(probe))
        slope = np.mean(high - low)
        curve[step] = float(1 / slope**2 - EPS)
    trainer.load(start)
    return curve


def _training_outputs(trainer: Trainer, metric: str, calls: int) -> Curve:
    """Trains on one batch and then on shifted ones, and returns a metric."""
    start, first, later = trainer.state(), _batch(0, 1), _batch(5, 3)
    curve = {}
    for call in range(1, calls + 1):
        xs = first if call == 1 else later
        curve[call] = float(trainer.step(xs, xs)[metric])
    trainer.load(start)
    return curve


def _dialect_table(x: str, measured: Measured, steps: Sequence[int]) -> str:
    curves = measured.curves
    columns = (x, *(f'`"{dialect}"`' for dialect in curves))
    rows = (
        (str(step), *(_number(curve[step]) for curve in curves.values()))
        for step in steps
    )
    error = measured.max_error
    within = f"within {error:.0e}" if error else "exactly"
    return table(columns, rows) + (
        f"Equinox, Flax and the reference agree {within}, at every step.\n"
    )


def _number(x: float) -> str:
    return f"{x:.4f}" if abs(x) > 5e-5 else "0"


# --- float32 ----------------------------------------------------------------

MEANS = (1, 10, 100, 1000, 10_000)


def variance_formulas() -> dict[str, Curve]:
    """Measures the float32 error of two variance formulas by the mean."""
    xs = np.random.default_rng(0).normal(size=(512, 16))
    norms = {
        "one pass": nnx.BatchNorm(16, rngs=nnx.Rngs(0)),
        "two passes": nnx.BatchNorm(
            16, use_fast_variance=False, rngs=nnx.Rngs(0)
        ),
    }
    curves: dict[str, Curve] = {name: {} for name in norms}
    for mean in MEANS:
        x = (xs + mean).astype(np.float32)
        wide = x.astype(np.float64)
        expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + EPS)
        for name, norm in norms.items():
            with jax.enable_x64(False):
                y = np.asarray(norm(jnp.asarray(x)), np.float64)
            curves[name][mean] = float(np.max(np.abs(y - expected)))
    return curves
