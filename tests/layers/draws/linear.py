"""Linear layers."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

ENDS = st.sampled_from(("scalar", 1, 4))
SHAPES = st.sampled_from(((), (3,), (2, 3)))
# A gradient of one number may be a small difference of large terms.
WIDE = st.sampled_from((2, 3, 5))
LORA = {"in_features": WIDE, "rank": WIDE, "out_features": WIDE}
# The axes that are mapped, and the shape of the input.
AXES = (
    {"axis": (-1,), "in_features": (3,), "rest": ()},
    {"axis": (-1,), "in_features": (3,), "rest": (2,)},
    {"axis": (-2,), "in_features": (3,), "rest": (2,)},
    {"axis": (-2, -1), "in_features": (2, 3), "rest": ()},
    {"axis": (-2, -1), "in_features": (2, 3), "rest": (2,)},
    {"axis": (-3, -1), "in_features": (2, 3), "rest": (4,)},
)
EQUATIONS = (
    {
        "equation": "...i,io->...o",
        "shape": (3, 2),
        "bias_shape": (2,),
        "size": (3,),
    },
    {
        "equation": "...ta,hab->...thb",
        "shape": (3, 2, 4),
        "bias_shape": (3, 4),
        "size": (5, 2),
    },
    {
        "equation": "...thb,hab->...ta",
        "shape": (3, 2, 4),
        "bias_shape": (2,),
        "size": (5, 3, 4),
    },
    {
        "equation": "...gi,gio->...go",
        "shape": (2, 3, 4),
        "bias_shape": (2, 4),
        "size": (2, 3),
    },
    {
        "equation": "...i,oi->...o",
        "shape": (2, 3),
        "bias_shape": (2,),
        "size": (4, 3),
    },
    {
        "equation": "...i,abi->...ba",
        "shape": (2, 4, 3),
        "bias_shape": (4, 2),
        "size": (3,),
    },
)


def is_valid(fields):
    # With `scan` and one layer, Equinox keeps an empty stack of hidden layers
    # whose dtype does not follow the parameters.
    return not (fields["scan"] and fields["depth"] == 1)


def without_bias(fields):
    return {**fields, "bias_shape": None}


DRAWS = {
    "linear": options(
        in_features=ENDS, out_features=ENDS, use_bias=st.booleans()
    ),
    "identity": options(size=SHAPES),
    "function": options(
        function=st.sampled_from(("tanh", "square")), size=SHAPES
    ),
    "sequential": options(
        sizes=st.sampled_from(((2, 3), (3, 1, 2), (2, 4, 4, 3))),
        use_bias=st.booleans(),
    ),
    "mlp": options(
        in_size=ENDS,
        out_size=ENDS,
        width_size=st.sampled_from((3, 5)),
        depth=st.sampled_from((0, 1, 3)),
        activation=st.sampled_from(("relu", "silu")),
        final_activation=st.sampled_from(("identity", "sigmoid")),
        use_bias=st.booleans(),
        use_final_bias=st.booleans(),
        scan=st.booleans(),
    ).filter(is_valid),
    "linear_general": st.builds(
        dict,
        st.sampled_from(AXES),
        out_features=st.sampled_from(((4,), (2, 3))),
        groups=st.sampled_from(((), (2,), (2, 3))),
        use_bias=st.booleans(),
    ),
    "einsum": st.one_of(
        st.sampled_from(EQUATIONS),
        st.sampled_from(EQUATIONS).map(without_bias),
    ),
    "lora": options(**LORA, has_base=st.booleans()),
    "lora_linear": options(**LORA, use_bias=st.booleans()),
}
