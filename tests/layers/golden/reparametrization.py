"""Spectral and weight normalization in NumPy.

Miyato et al., arXiv:1802.05957; Salimans and Kingma, arXiv:1602.07868.
"""

from collections.abc import Iterator

import numpy as np

from tests.layers.golden.case import Case
from tests.layers.golden.convolution import conv
from tests.layers.golden.linear import linear


def length(x):
    """The Euclidean length of a real vector."""
    return np.sqrt(np.sum(x * x))


def spectral_weight(weight, u, v, *, iterations, eps, training):
    """weight / (u^T W v), where W is the weight with flattened later axes.

    In training, u = W v / |W v| and v = W^T u / |W^T u| are iterated first; no
    gradient flows through these steps.

    Returns:
        The normalized weight, u and v.
    """
    matrix = weight.reshape(len(weight), -1)
    if training:
        fixed = matrix.real
        for _ in range(iterations):
            u = fixed @ v
            u = u / max(eps, length(u))
            v = fixed.T @ u
            v = v / max(eps, length(v))
    return weight / (u @ matrix @ v), u, v


def apply(x, weight, bias):
    """A linear map, or a convolution if the weight has more axes."""
    if weight.ndim == 2:
        return linear(x, weight, bias)
    return conv(x, weight, bias, stride=1, padding=0, dilation=1, groups=1)


def spectral_norm(
    x,
    weight,
    weight_u,
    weight_v,
    bias=None,
    *,
    num_power_iterations,
    eps,
    training,
    **_,
):
    """Applies the normalized weight; returns the buffers u and v."""
    weight, u, v = spectral_weight(
        weight,
        weight_u,
        weight_v,
        iterations=num_power_iterations,
        eps=eps,
        training=training,
    )
    return apply(x, weight, bias), {"weight_u": u, "weight_v": v}


def weight_norm(x, weight_v, weight_g, bias=None, *, axis, **_):
    """Applies g v / |v|, with one length per index of an axis, or one."""
    weight = np.zeros(weight_v.shape, np.result_type(weight_v, weight_g))
    for i in range(1 if axis is None else weight.shape[axis]):
        part = (slice(None),) * (axis or 0) + (() if axis is None else (i,))
        one = weight_v[part]
        length_of_one = np.sqrt(np.sum(one * one))
        weight[part] = weight_g.reshape(-1)[i] * one / length_of_one
    return apply(x, weight, bias)


# --- cases -------------------------------------------------------------------


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    for kernel, iterations, bias in (((), 1, True), ((2,), 3, False)):
        yield Case(
            layer="spectral_norm",
            fields={
                "in_features": 3,
                "out_features": 2,
                "kernel_size": kernel,
                "use_bias": bias,
                "size": 3,
                "num_power_iterations": iterations,
                "eps": 1e-12,
            },
            define=spectral_norm,
            inputs=((*(3,) * len(kernel), 3),),
            params={"weight": (2, 3, *kernel)}
            | ({"bias": (2,)} if bias else {}),
            buffers={
                "weight_u": np.array([0.6, -0.8]),
                "weight_v": np.array([2, 1, 2, 0, 6, 2])[: 6 if kernel else 3]
                / (7 if kernel else 3),
            },
            calls=(True, True, True, False),
        )
    for kernel, axis, bias in (
        ((2,), 0, False),
        ((2, 1), 1, True),
        ((), None, True),
    ):
        weight = (2, 3, *kernel)
        yield Case(
            layer="weight_norm",
            fields={
                "in_features": 3,
                "out_features": 2,
                "kernel_size": kernel,
                "use_bias": bias,
                "size": 2,
                "axis": axis,
            },
            define=weight_norm,
            inputs=((*(2,) * len(kernel), 3),),
            params={
                "weight_v": weight,
                "weight_g": tuple(
                    n if i == axis else 1 for i, n in enumerate(weight)
                ),
            }
            | ({"bias": (2,)} if bias else {}),
        )
