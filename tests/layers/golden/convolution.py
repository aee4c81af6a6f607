"""Convolutions in NumPy, as PyTorch's documentation defines them.

PyTorch: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d and
    torch.nn.ConvTranspose2d. Here batches are channels-last.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case

MODES: dict[str, Any] = {
    "ZEROS": "constant",
    "CIRCULAR": "wrap",
    "REFLECT": "reflect",
    "REPLICATE": "edge",
}


def each(value, axes):
    """Returns one number for each axis."""
    return tuple(value) if isinstance(value, tuple) else (value,) * axes


def sides(padding, axes):
    """Returns (before, after) for each axis."""
    return [
        pair if isinstance(pair, tuple) else (pair, pair)
        for pair in each(padding, axes)
    ]


def named(padding, sizes, kernel, stride, dilation):
    """Returns (before, after) for each axis, for a padding with a name.

    `"SAME"` gives ceil(size / stride) outputs, `"SAME_LOWER"` puts the extra
    entry of an odd padding in front, and with `"CAUSAL"` an output does not
    depend on later inputs.
    """
    result = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = d * (k - 1)
        total = max((-(-n // s) - 1) * s + reach + 1 - n, 0)
        result.append(
            {
                "VALID": (0, 0),
                "SAME": (total // 2, total - total // 2),
                "SAME_LOWER": (total - total // 2, total // 2),
                "CAUSAL": (reach, 0),
            }[padding]
        )
    return result


def conv(
    x,
    weight,
    bias=None,
    *,
    stride,
    padding,
    dilation,
    groups,
    padding_mode="ZEROS",
    input_dilation=1,
    mask=None,
    **_,
):
    """y[n,t,o] = bias[o] + sum_ck weight[o,c,k] x[n, t s + k d, g C/G + c]."""
    out, per_group, *kernel = weight.shape
    axes = len(kernel)
    stride, dilation = each(stride, axes), each(dilation, axes)
    if mask is not None:
        weight = weight * np.array(mask).reshape(kernel)
    for axis, gap in enumerate(each(input_dilation, axes), start=1):
        x = spread(x, axis, gap)
    pads = (
        named(padding, x.shape[1:-1], kernel, stride, dilation)
        if isinstance(padding, str)
        else sides(padding, axes)
    )
    x = np.pad(x, [(0, 0), *pads, (0, 0)], mode=MODES[padding_mode])
    size = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(
            x.shape[1:-1], kernel, stride, dilation, strict=True
        )
    ]
    y = np.zeros((len(x), *size, out), np.result_type(x, weight))
    for t in itertools.product(*map(range, size)):
        for k in itertools.product(*map(range, kernel)):
            here = tuple(
                i * s + j * d
                for i, s, j, d in zip(t, stride, k, dilation, strict=True)
            )
            for o in range(out):
                first = o // (out // groups) * per_group
                channels = slice(first, first + per_group)
                y[(slice(None), *t, o)] += np.sum(
                    x[(slice(None), *here, channels)]
                    * weight[(o, slice(None), *k)],
                    axis=-1,
                )
    return y if bias is None else y + bias


def spread(x, axis, gap):
    """Inserts gap - 1 zeros between two elements."""
    shape = list(x.shape)
    shape[axis] = (shape[axis] - 1) * gap + 1
    y = np.zeros(shape, x.dtype)
    y[(slice(None),) * axis + (slice(None, None, gap),)] = x
    return y


def conv_transpose(
    x,
    weight,
    bias=None,
    *,
    stride,
    padding,
    output_padding,
    dilation,
    groups,
    padding_mode="ZEROS",
    **_,
):
    """Each x[n,i,c] adds weight[c,o,k] x[n,i,c] to y[n, i s + k d - p, o].

    The output has (i - 1) s - 2 p + d (k - 1) + output_padding + 1 elements.
    With circular padding, the elements that are cut off are added at the other
    end. `"SAME"` is the padding with which the convolution maps an array of
    the size of this input times the stride to one of the size of this input.
    """
    channels, per_group, *kernel = weight.shape
    axes = len(kernel)
    stride, dilation = each(stride, axes), each(dilation, axes)
    more = each(output_padding, axes)
    if isinstance(padding, str):
        sizes = [n * s for n, s in zip(x.shape[1:-1], stride, strict=True)]
        cut = named(padding, sizes, kernel, stride, dilation)
    else:
        cut = sides(padding, axes)
    full = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, s, d, k, extra in zip(
            x.shape[1:-1], stride, dilation, kernel, more, strict=True
        )
    ]
    out = per_group * groups
    y = np.zeros((len(x), *full, out), np.result_type(x, weight))
    for i in itertools.product(*map(range, x.shape[1:-1])):
        for k in itertools.product(*map(range, kernel)):
            there = tuple(
                a * s + b * d
                for a, s, b, d in zip(i, stride, k, dilation, strict=True)
            )
            for c in range(channels):
                first = c // (channels // groups) * per_group
                y[(slice(None), *there, slice(first, first + per_group))] += (
                    x[(slice(None), *i, slice(c, c + 1))]
                    * weight[(c, slice(None), *k)]
                )
    for axis, ((a, b), n) in enumerate(zip(cut, full, strict=True), start=1):
        rows = np.moveaxis(y, axis, 0)
        kept = rows[a : n - b].copy()
        if padding_mode == "CIRCULAR":
            for j in [*range(a), *range(n - b, n)]:
                kept[(j - a) % len(kept)] += rows[j]
        y = np.moveaxis(kept, 0, axis)
    return y if bias is None else y + bias


# --- cases -------------------------------------------------------------------


CONVOLUTIONS = [
    # One axis with each option alone, then two axes with several options.
    {"size": (6,), "kernel_size": (2,), "stride": (2,), "padding": ((1, 0),)},
    {"size": (5,), "kernel_size": (2,), "dilation": (3,), "use_bias": False},
    {"size": (4,), "kernel_size": (3,), "groups": 2, "padding": ((0, 2),)},
    *(
        {
            "size": (5,),
            "kernel_size": (3,),
            "stride": (2,),
            "padding": ((2, 1),),
            "padding_mode": mode,
        }
        for mode in ("REFLECT", "REPLICATE")
    ),
    {
        "size": (4, 3),
        "kernel_size": (3, 2),
        "stride": (2, 1),
        "padding": ((1, 1), (0, 1)),
        "dilation": (1, 2),
        "groups": 2,
    },
    {
        "size": (2, 3),
        "kernel_size": (2, 1),
        "padding": ((1, 1), (1, 0)),
        "padding_mode": "CIRCULAR",
    },
    {"size": (5,), "kernel_size": (4,), "stride": (2,), "padding": "SAME"},
    {"size": (4,), "kernel_size": (4,), "padding": "SAME_LOWER"},
    {"size": (4,), "kernel_size": (2,), "dilation": (2,), "padding": "CAUSAL"},
    {
        "size": (2, 2, 3),
        "kernel_size": (1, 2, 2),
        "padding": ((0, 0), (1, 0), (0, 0)),
        "stride": (1, 1, 2),
        "groups": 2,
    },
]


def _conv() -> Iterator[Case]:
    for options in CONVOLUTIONS:
        axes = len(options["size"])
        fields = {
            "in_channels": 2,
            "out_channels": 2,
            "stride": (1,) * axes,
            "padding": ((0, 0),) * axes,
            "dilation": (1,) * axes,
            "groups": 1,
            "use_bias": True,
            "padding_mode": "ZEROS",
            **options,
        }
        if fields["groups"] == 2:
            fields["out_channels"] = 4
        out = fields["out_channels"]
        weight = (out, 2 // fields["groups"], *fields["kernel_size"])
        yield Case(
            layer="conv",
            fields=fields,
            define=conv,
            inputs=((*fields["size"], 2),),
            params={"weight": weight}
            | ({"bias": (out,)} if fields["use_bias"] else {}),
        )


def _masked_conv() -> Iterator[Case]:
    for mask in ((1, 0, 1, 1, 1, 0), None):
        yield Case(
            layer="masked_conv",
            fields={
                "in_channels": 2,
                "out_channels": 2,
                "kernel_size": (2, 3),
                "stride": (1, 2),
                "padding": ((1, 0), (0, 1)),
                "input_dilation": (2, 1),
                "dilation": (1, 1),
                "groups": 1,
                "mask": mask,
                "use_bias": True,
                "size": (2, 4),
            },
            define=conv,
            inputs=((2, 4, 2),),
            params={"weight": (2, 2, 2, 3), "bias": (2,)},
        )


TRANSPOSED = [
    {"size": (3,), "kernel_size": (2,), "stride": (3,)},
    {
        "size": (3,),
        "kernel_size": (3,),
        "stride": (2,),
        "padding": ((1, 1),),
        "output_padding": (1,),
    },
    {"size": (3,), "kernel_size": (2,), "dilation": (2,), "use_bias": False},
    {
        "size": (2, 3),
        "kernel_size": (3, 2),
        "stride": (2, 3),
        "padding": ((0, 1), (1, 0)),
        "output_padding": (0, 2),
        "dilation": (2, 1),
        "groups": 2,
    },
    {
        "size": (3,),
        "kernel_size": (4,),
        "padding": "SAME",
        "padding_mode": "CIRCULAR",
    },
    {"size": (2,), "kernel_size": (4,), "stride": (2,), "padding": "SAME"},
    {"size": (1, 2, 2), "kernel_size": (2, 1, 2), "stride": (1, 2, 1)},
]


def _conv_transpose() -> Iterator[Case]:
    for options in TRANSPOSED:
        axes = len(options["size"])
        fields = {
            "in_channels": 2,
            "out_channels": 4 if options.get("groups") == 2 else 3,
            "stride": (1,) * axes,
            "padding": ((0, 0),) * axes,
            "output_padding": (0,) * axes,
            "dilation": (1,) * axes,
            "groups": 1,
            "use_bias": True,
            "padding_mode": "ZEROS",
            **options,
        }
        out = fields["out_channels"]
        weight = (2, out // fields["groups"], *fields["kernel_size"])
        yield Case(
            layer="conv_transpose",
            fields=fields,
            define=conv_transpose,
            inputs=((*fields["size"], 2),),
            params={"weight": weight}
            | ({"bias": (out,)} if fields["use_bias"] else {}),
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _conv()
    yield from _masked_conv()
    yield from _conv_transpose()
