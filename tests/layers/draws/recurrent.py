"""Recurrent layers."""

from hypothesis import strategies as st

from tests.layers.draws.options import options

# With one or two hidden states, a gradient is sometimes a small difference of
# large terms.
CELL = {
    "input_size": st.sampled_from((1, 2, 3, 5)),
    "hidden_size": st.sampled_from((3, 4, 6)),
}
# Scans take long to compile, so the sizes are not drawn.
SEQUENCE = {
    "cell": st.sampled_from(("lstm", "gru", "simple")),
    "return_carry": st.booleans(),
    "seq_lengths": st.booleans(),
    "initial_carry": st.booleans(),
}

DRAWS = {
    "lstm_cell": options(**CELL, use_bias=st.booleans()),
    "optimized_lstm_cell": options(**CELL, use_bias=st.booleans()),
    "gru_cell": options(**CELL, use_bias=st.booleans()),
    "simple_cell": options(**CELL, residual=st.booleans()),
    "rnn": options(
        **SEQUENCE, reverse=st.booleans(), keep_order=st.booleans()
    ),
    "bidirectional": options(**SEQUENCE),
}
