"""Measures what batch norms do over training, and how they round."""

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
from common.training.building import build
from common.training.trainer import Trainer

FEATURES, ROWS = 4, 64
MOMENTUM, EPS = 0.99, 1e-5
LIFT = 4096.0
"""Keeps every relu open; small enough to be added and taken off exactly."""

Curve = dict[int, float]


def pages() -> dict[str, str]:
    """Measures the dialects, in every backend."""
    trainers = {
        dialect: [_norm(name, dialect) for name in registry.backends()]
        for dialect in BATCH_NORM_DIALECTS
    }
    steps = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    variances = _measure(trainers, lambda it: _inference_variance(it, 500))
    means = _measure(trainers, lambda it: _training_outputs(it, "mean", 501))
    deviations = _measure(
        trainers, lambda it: _training_outputs(it, "deviation", 501)
    )
    calls = [1, 2, 3, 11, 101, 301, 501]
    return {
        "inference_variance.md": _dialects("steps", variances, steps),
        "inference_variance.svg": plots.lines(
            variances.curves,
            x="training steps",
            y="variance that inference divides by",
            wanted=4.0,
            log=True,
        ),
        "training_mean.md": _dialects("training call", means, calls),
        "training_deviation.md": _dialects("training call", deviations, calls),
        "training_mean.svg": plots.lines(
            means.curves,
            x="training calls",
            y="mean of the output in training",
            wanted=0.0,
        ),
        "variance_formulas.svg": variance_formulas(),
    }


class Measured(typing.NamedTuple):
    """A number over training, in each dialect.

    Attributes:
        curves: the reference's number by step, by dialect.
        apart: the largest distance of a backend from the reference.
    """

    curves: dict[str, Curve]
    apart: float


def _measure(
    trainers: dict[str, list[Trainer]], read: Callable[[Trainer], Curve]
) -> Measured:
    curves, apart = {}, 0.0
    for dialect, group in trainers.items():
        first, *others = (read(trainer) for trainer in group)
        curves[dialect] = first
        apart = max(
            apart, *(abs(it[k] - first[k]) for it in others for k in first)
        )
    return Measured(curves, apart)


def _norm(backend: str, dialect: str) -> Trainer:
    """Builds a model that is a BatchNorm and nothing else."""
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
    same = np.eye(FEATURES)
    lift = np.full(FEATURES, LIFT)
    params = {
        "blocks.0.linear.weight": same,
        "blocks.0.norm.weight": np.ones(FEATURES),
        "blocks.0.norm.bias": lift,
        "head.weight": same,
        "head.bias": -lift,
    }
    return trainer.load(dataclasses.replace(state, params=params))


def _batch(mean: float, deviation: float) -> np.ndarray:
    """Draws a batch whose mean and deviation are exactly these."""
    xs = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    xs = (xs - xs.mean(0)) / xs.std(0)
    return mean + deviation * xs


def _inference_variance(trainer: Trainer, steps: int) -> Curve:
    """Trains on one batch; returns what inference takes for its variance."""
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
    """Trains on one batch, then on shifted ones; returns their outputs."""
    start, first, later = trainer.state(), _batch(0, 1), _batch(5, 3)
    curve = {}
    for call in range(1, calls + 1):
        xs = first if call == 1 else later
        curve[call] = float(trainer.step(xs, xs)[metric])
    trainer.load(start)
    return curve


def _dialects(x: str, measured: Measured, at: Sequence[int]) -> str:
    curves = measured.curves
    columns = (x, *(f'`"{dialect}"`' for dialect in curves))
    rows = (
        (str(i), *(_number(curve[i]) for curve in curves.values())) for i in at
    )
    within = f"within {measured.apart:.0e}" if measured.apart else "exactly"
    return table(columns, rows) + (
        f"Equinox, Flax and the reference agree {within}, at every step.\n"
    )


def _number(x: float) -> str:
    return f"{x:.4f}" if abs(x) > 5e-5 else "0"


# --- float32 ----------------------------------------------------------------

MEANS = (1, 10, 100, 1000, 10_000)


def variance_formulas() -> str:
    """Draws the float32 error of the two variance formulas over the mean."""
    xs = np.random.default_rng(0).normal(size=(512, 16))
    norms = {
        "one pass": nnx.BatchNorm(16, rngs=nnx.Rngs(0)),
        "two passes": nnx.BatchNorm(
            16, use_fast_variance=False, rngs=nnx.Rngs(0)
        ),
    }
    curves: dict[str, dict[int, float]] = {name: {} for name in norms}
    for mean in MEANS:
        x = (xs + mean).astype(np.float32)
        exact = x.astype(np.float64)
        true = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + EPS)
        for name, norm in norms.items():
            with jax.enable_x64(False):
                y = np.asarray(norm(jnp.asarray(x)), np.float64)
            curves[name][mean] = float(np.max(np.abs(y - true)))
    return plots.lines(
        curves,
        x="mean of the data, whose standard deviation is 1",
        y="largest error of a normalised value",
        wanted=float(np.finfo(np.float32).eps),
        log=True,
    )
