"""Spectral and weight normalization."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

# The gradient of a weight that is normalized to one number is zero.
WRAPPED = {
    "in_features": st.sampled_from((2, 4)),
    "out_features": st.sampled_from((2, 3)),
    "kernel_size": st.sampled_from(((), (2,), (1, 2), (2, 1, 3))),
    "use_bias": st.booleans(),
}

DRAWS = {
    "spectral_norm": options(
        **WRAPPED,
        num_power_iterations=st.sampled_from((1, 2)),
        eps=st.sampled_from((1e-12, 1.0)),
    ),
    "weight_norm": st.one_of(
        options(**WRAPPED, axis=st.sampled_from((0, 1))),
        # The gradient of a single length is one sum, which at some sizes is a
        # small difference of large terms. At the default sizes it is not.
        options(kernel_size=WRAPPED["kernel_size"], axis=st.none()),
    ),
}
