"""Normalization layers in NumPy.

Ioffe and Szegedy, arXiv:1502.03167; Ba et al., arXiv:1607.06450; Zhang and
Sennrich, arXiv:1910.07467; Wu and He, arXiv:1803.08494; Ulyanov et al.,
arXiv:1607.08022.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case


def centred(x, axes):
    """Returns the mean and the biased variance, with the axes kept."""
    mean = np.mean(x, axes, keepdims=True)
    return mean, np.mean((x - mean) ** 2, axes, keepdims=True)


def standardize(x, axes, eps):
    """(x - mean) / sqrt(variance + eps)."""
    mean, var = centred(x, axes)
    return (x - mean) / np.sqrt(var + eps)


def affine(x, weight, bias):
    """Multiplies by a weight and adds a bias, if they are not None."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def layer_norm(x, mask=None, weight=None, bias=None, *, shape, eps, **_):
    """Normalizes each example over its last axes, of the given shape.

    The mask selects the elements of the mean and the variance.
    """
    y = np.zeros_like(x)
    for b, row in enumerate(x):
        counted = row.reshape(-1) if mask is None else row[mask[b]]
        mean = np.sum(counted) / counted.size
        var = np.sum((counted - mean) ** 2) / counted.size
        y[b] = (row - mean) / np.sqrt(var + eps)
    assert x.shape[1:] == tuple(shape)
    return affine(y, weight, bias)


def rms_norm(x, weight=None, bias=None, *, shape, eps, **_):
    """x / sqrt(mean(x^2) + eps)."""
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    square = np.mean(x**2, axes, keepdims=True)
    return affine(x / np.sqrt(square + eps), weight, bias)


def group_norm(x, weight=None, bias=None, *, groups, eps, **_):
    """Normalizes each example and each group of consecutive channels."""
    parts = [
        standardize(part, tuple(range(1, x.ndim)), eps)
        for part in np.split(x, groups, axis=-1)
    ]
    return affine(np.concatenate(parts, axis=-1), weight, bias)


def instance_norm(x, weight=None, bias=None, *, eps, **_):
    """Normalizes each channel of each example."""
    axes = tuple(range(1, x.ndim - 1))
    return affine(standardize(x, axes, eps), weight, bias)


def batch_norm(
    x,
    mask=None,
    weight=None,
    bias=None,
    *,
    running_mean,
    running_var,
    first_time=None,
    num_batches_tracked: Any = None,
    dialect,
    momentum,
    eps,
    training,
    **_,
):
    """Normalizes each channel over the batch.

    `momentum` is the weight of the old running statistics. `"torch"` stores
    the unbiased variance and normalizes by the biased one; `"standard"` also
    stores the biased one. `"batch"` divides the running statistics by
    1 - momentum^calls in inference. `"ema"` normalizes by the running
    statistics in training too, and its first batch replaces them.
    The mask selects the positions of the statistics.
    """
    flat = x.reshape(-1, x.shape[-1])
    flat = flat if mask is None else flat[mask.reshape(-1)]
    count = len(flat)
    use_mean, use_var = running_mean, running_var
    new = {}
    if training:
        mean = np.sum(flat, axis=0) / count
        var = np.sum((flat - mean) ** 2, axis=0) / count
        stored = var * count / (count - 1) if dialect == "torch" else var
        if dialect == "ema" and first_time:
            running_mean, running_var = mean, stored
        else:
            running_mean = momentum * running_mean + (1 - momentum) * mean
            running_var = momentum * running_var + (1 - momentum) * stored
        use_mean, use_var = mean, var
        if dialect == "ema":
            use_mean, use_var = running_mean, running_var
    elif dialect == "batch":
        debias = 1 - momentum ** int(num_batches_tracked)
        use_mean, use_var = running_mean / debias, running_var / debias
    new["running_mean"], new["running_var"] = running_mean, running_var
    if first_time is not None:
        new["first_time"] = np.array(bool(first_time) and not training)
    if num_batches_tracked is not None:
        new["num_batches_tracked"] = num_batches_tracked + int(training)
    y = (x - use_mean) / np.sqrt(use_var + eps)
    return affine(y, weight, bias), new


# --- cases -------------------------------------------------------------------


def _affine(shape, weight=True, bias=True):
    names = {"weight": weight, "bias": bias}
    return {name: shape for name, used in names.items() if used}


TRAINED = (True, True, True, False)


def _batch_norm() -> Iterator[Case]:
    for dialect, masked, affine in (
        ("standard", False, True),
        ("batch", False, True),
        ("ema", False, True),
        ("torch", False, True),
        ("torch", True, False),
    ):
        buffers = {
            "running_mean": np.zeros(2),
            "running_var": np.zeros(2) if dialect == "ema" else np.ones(2),
        }
        if dialect == "ema":
            buffers["first_time"] = np.array(True)
        if dialect == "batch":
            buffers["num_batches_tracked"] = np.array(0)
        mask = np.array([[1, 0, 1], [1, 1, 0]], bool)[..., None]
        yield Case(
            layer="batch_norm",
            fields={
                "features": 2,
                "dialect": dialect,
                "momentum": 0.8,
                "eps": 0.01,
                "channelwise_affine": affine,
                "masked": masked,
                "size": (3,),
            },
            define=batch_norm,
            inputs=((3, 2), *([mask] if masked else [])),
            params=_affine((2,), affine, affine),
            buffers=buffers,
            calls=TRAINED,
        )


MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)


def _norms() -> Iterator[Case]:
    for layer, shape, weight, bias in (
        ("layer_norm", (2, 3), True, False),
        ("layer_norm", (4,), False, True),
        ("rms_norm", (5,), True, False),
        ("rms_norm", (2, 3), True, True),
        ("rms_norm", (4,), False, False),
    ):
        yield Case(
            layer=layer,
            fields={
                "shape": shape,
                "eps": 0.01,
                "use_weight": weight,
                "use_bias": bias,
            },
            define=layer_norm if layer == "layer_norm" else rms_norm,
            inputs=(shape,),
            params=_affine(shape, weight, bias),
        )
    yield Case(
        layer="layer_norm",
        fields={"shape": (5,), "eps": 0.01, "masked": True},
        define=layer_norm,
        inputs=((5,), MASK),
        params=_affine((5,)),
    )
    for groups, channels, affine in (
        (2, 6, True),
        (2, 4, False),
    ):
        yield Case(
            layer="group_norm",
            fields={
                "groups": groups,
                "channels": channels,
                "eps": 0.01,
                "channelwise_affine": affine,
                "size": (2,),
            },
            define=group_norm,
            inputs=((2, channels),),
            params=_affine((channels,), affine, affine),
        )
    for affine in (True, False):
        yield Case(
            layer="instance_norm",
            fields={
                "channels": 3,
                "eps": 0.01,
                "channelwise_affine": affine,
                "size": (2, 2),
            },
            define=instance_norm,
            inputs=((2, 2, 3),),
            params=_affine((3,), affine, affine),
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _batch_norm()
    yield from _norms()
