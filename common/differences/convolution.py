"""Convolution and pooling."""

from common.differences.row import RAISES, SEEDED, Difference

ROWS = (
    Difference(
        name="conv-bfloat16",
        family="convolution",
        layer="Conv",
        backend="equinox",
        dtype="bfloat16",
        quantity=RAISES,
        what='A float32 layer refuses a bfloat16 input, "requires '
        'arguments to have the same dtypes"; Linear and nnx.Conv promote '
        "it.",
        measured=1.0,
        origin="1",
        ours="The layer table pairs models of one dtype.",
    ),
    Difference(
        name="conv-transpose-order",
        family="convolution",
        layer="ConvTranspose",
        backend="equinox",
        quantity="difference of two output sizes",
        what="ConvTranspose takes stride, padding, output_padding; "
        "ConvTranspose1d, 2d and 3d take stride, output_padding, padding.",
        measured=3.0,
        origin="2 * padding + output padding = 2 + 1",
        ours="Both are passed by keyword.",
    ),
    Difference(
        name="pool-use-ceil",
        family="convolution",
        layer="MaxPool(use_ceil=True)",
        backend="equinox",
        quantity=RAISES,
        what="use_ceil pads by a whole stride, and a padding above the "
        "kernel's size is refused: \"Paddings should be less than the size "
        'of the kernel".',
        measured=1.0,
        origin="1",
        related=("equinox #175", "equinox #176"),
        ours="The layer table draws paddings that fit with the stride.",
    ),
    Difference(
        name="adaptive-pool-windows",
        family="convolution",
        layer="AdaptiveAvgPool1d",
        backend="equinox",
        quantity="mean of the second of three windows",
        what="Where sizes do not divide, the windows are blocks of two "
        "sizes; PyTorch's overlap. Over 0, ..., 6 the second mean is that "
        "of 3 and 4, not of 2, 3 and 4.",
        expected=3.0,
        measured=3.5,
        origin="(3 + 4) / 2",
        upstream="equinox #641",
        ours="All backends mean these blocks.",
    ),
    Difference(
        name="adaptive-pool-larger",
        family="convolution",
        layer="AdaptiveAvgPool1d",
        backend="equinox",
        quantity=RAISES,
        what='A target larger than the input raises "ZeroDivisionError: '
        'integer modulo by zero"; PyTorch repeats elements.',
        measured=1.0,
        origin="1",
        ours="The layer table draws targets no larger than the input.",
    ),
    Difference(
        name="conv-int-kernel",
        family="convolution",
        layer="Conv",
        backend="flax",
        quantity="axes of an image that a kernel spans",
        what="A kernel size that is one integer is one axis, so an image "
        "is read as a stack of rows, without an error.",
        expected=2.0,
        measured=1.0,
        origin="1",
        ours="The layer table passes a tuple.",
    ),
    Difference(
        name="conv-circular-stride",
        family="convolution",
        layer="Conv",
        backend="flax",
        quantity="shift of the windows",
        what="'CIRCULAR' and 'REFLECT' pad as for stride 1, whatever the "
        "stride. 'SAME', as Equinox's circular one, pads less at stride 2, "
        "so the windows are elsewhere.",
        measured=1.0,
        origin="1",
        ours="For a stride above 1 the layer table pads first.",
    ),
    Difference(
        name="conv-transpose-valid",
        family="convolution",
        layer="ConvTranspose",
        backend="flax",
        quantity="size of an output",
        what="Padding 'VALID' gives size * stride where the kernel is "
        "smaller than the stride; PyTorch and Equinox give (size - 1) * "
        "stride + kernel.",
        expected=9.0,
        measured=10.0,
        origin="5 * 2",
        ours="The layer table passes pairs in the place of 'VALID'.",
    ),
    Difference(
        name="conv-transpose-lower",
        family="convolution",
        layer="ConvTranspose",
        backend="flax",
        quantity=RAISES,
        what="Padding 'SAME_LOWER' raises \"String padding is not "
        'implemented" at a stride above 1; Equinox takes it.',
        measured=1.0,
        origin="1",
        ours="Our NNX ConvTranspose takes it.",
    ),
    Difference(
        name="conv-transpose-fan-in",
        family="convolution",
        layer="ConvTranspose",
        backend="flax",
        quantity="deviation of a weight times sqrt(fan-in)",
        what="With transpose_kernel=True the initialiser takes the number "
        "of output channels for that of the inputs.",
        expected=1.0,
        measured=0.2,
        band=SEEDED,
        origin="sqrt(in / out) = sqrt(8 / 200)",
        ours="Compared models start from the same arrays, whatever the "
        "initialisers.",
    ),
)
