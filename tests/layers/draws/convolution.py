"""Convolutions: a few shapes, each with all options that are valid for it."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

# 1 to 4 axes, with different strides, dilations and paddings.
SHAPES = (
    dict(kernel_size=(3,), stride=(2,), dilation=(1,), size=(6,)),
    dict(kernel_size=(2,), stride=(1,), dilation=(3,), size=(5,)),
    dict(kernel_size=(3, 2), stride=(1, 2), dilation=(2, 1), size=(6, 4)),
    dict(kernel_size=(2, 3), stride=1, dilation=1, size=(4, 5)),
    dict(kernel_size=(2, 1, 2), stride=(1, 1, 2), dilation=2, size=(4, 2, 4)),
    dict(kernel_size=(2, 1, 2, 1), stride=1, dilation=1, size=(3, 2, 3, 2)),
)
CHANNELS = st.sampled_from(
    (
        dict(in_channels=1, out_channels=2, groups=1),
        dict(in_channels=3, out_channels=2, groups=1),
        dict(in_channels=4, out_channels=6, groups=2),
        dict(in_channels=3, out_channels=6, groups=3),  # depthwise
    )
)


def merged(*strategies):
    """Draws from several strategies, and merges the fields."""

    def merge(drawn):
        return {name: x for fields in drawn for name, x in fields.items()}

    return st.tuples(*strategies).map(merge)


def padded(shape):
    """Draws a padding and a mode that are valid for a shape."""
    axes = len(shape["kernel_size"])
    pairs = ((1, 0), (0, 1), (1, 2), (1, 1))[:axes]
    modes = st.sampled_from(("ZEROS", "REFLECT", "REPLICATE", "CIRCULAR"))
    return merged(
        st.just(shape),
        st.one_of(
            st.fixed_dictionaries(
                dict(
                    padding=st.sampled_from(
                        ("SAME", "VALID", "SAME_LOWER", "CAUSAL", 1, pairs)
                    ),
                    padding_mode=modes,
                )
            ),
            st.just(dict(padding=(1,) * axes)),
        ),
    )


TRANSPOSED = (
    dict(kernel_size=(3,), stride=(2,), dilation=(1,), size=(4,)),
    dict(kernel_size=(2,), stride=(3,), dilation=(1,), size=(3,)),
    dict(kernel_size=(2,), stride=(2,), dilation=(2,), size=(4,)),
    dict(kernel_size=(3, 2), stride=(1, 2), dilation=(2, 1), size=(5, 3)),
    dict(kernel_size=(4, 3), stride=(2, 1), dilation=(1, 1), size=(3, 3)),
    dict(
        kernel_size=(2, 1, 2),
        stride=(2, 1, 1),
        dilation=(1, 1, 2),
        size=(2, 2, 3),
    ),
    dict(
        kernel_size=(2, 1, 2, 1),
        stride=(2, 1, 1, 1),
        dilation=(1, 1, 1, 1),
        size=(2, 1, 3, 2),
    ),
)


def transposed(shape):
    """Draws a padding and a mode for a transposed convolution."""
    axes = len(shape["kernel_size"])
    none = (0,) * axes
    most = tuple(s - 1 for s in shape["stride"])
    pairs = ((1, 0), (0, 0), (0, 1), (0, 0))[:axes]
    numbers = (1, 0, 0, 0)[:axes]
    return merged(
        st.just(shape),
        st.one_of(
            st.fixed_dictionaries(
                dict(
                    padding=st.sampled_from(
                        ("SAME", "VALID", "SAME_LOWER", "CAUSAL")
                        + (numbers, pairs)
                    ),
                    padding_mode=st.just("ZEROS"),
                    output_padding=st.sampled_from((none, most)),
                )
            ),
            st.fixed_dictionaries(
                dict(
                    padding=st.sampled_from(("SAME", "SAME_LOWER")),
                    padding_mode=st.just("CIRCULAR"),
                    output_padding=st.just(none),
                )
            ),
        ),
    )


MASKED = (
    dict(
        kernel_size=(3,),
        stride=(1,),
        padding=((1, 1),),
        dilation=(2,),
        mask=(1, 0, 1),
        size=(5,),
    ),
    dict(
        kernel_size=(2, 3),
        stride=(1, 2),
        padding=((1, 0), (1, 1)),
        dilation=(1, 1),
        mask=(1, 1, 1, 1, 0, 0),
        size=(3, 4),
    ),
    dict(
        kernel_size=(2, 2),
        stride=(2, 1),
        padding=((0, 0), (1, 0)),
        dilation=(1, 2),
        mask=None,
        size=(3, 4),
    ),
)


def dilated(shape):
    """Draws a dilation of the input for a shape."""
    axes = len(shape["kernel_size"])
    dilations = st.sampled_from(((1,) * axes, (2, 3)[:axes]))
    return merged(st.just(shape), options(input_dilation=dilations))


BIAS = options(use_bias=st.booleans())

DRAWS = {
    "conv": merged(st.sampled_from(SHAPES).flatmap(padded), CHANNELS, BIAS),
    "masked_conv": merged(
        st.sampled_from(MASKED).flatmap(dilated), CHANNELS, BIAS
    ),
    "conv_transpose": merged(
        st.sampled_from(TRANSPOSED).flatmap(transposed), CHANNELS, BIAS
    ),
}
