"""Train an LSTM on padded sequences, whose padding has no effect.

`nnx.RNN` scans a cell over a batch. With `seq_lengths` it returns the
carry after the last input of each sequence.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


def last_state(rnn, xs, lengths):
    """Returns the states after the last input of each sequence."""
    (_, h), _ = rnn(xs, seq_lengths=lengths, return_carry=True)
    return h


def run(key: jax.Array) -> dict[str, jax.Array]:
    """Returns the hidden states for two kinds of padding."""
    layer_key, key1, key2, key3, data_key = jr.split(key, 5)
    # NNX creates float32 arrays. This follows JAX's default dtype.
    rngs = nnx.Rngs(layer_key)
    cell = nnx.OptimizedLSTMCell(3, 4, param_dtype=float, rngs=rngs)
    cell.dense_i.kernel[...] = jr.normal(key1, (3, 16))
    cell.dense_h.kernel[...] = jr.normal(key2, (4, 16))
    cell.dense_h.bias = nnx.Param(jr.normal(key3, (16,)))
    model = nnx.RNN(cell)
    xs, lengths = jr.normal(data_key, (3, 6, 3)), jnp.array([2, 6, 4])
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, xs, lengths):
        def loss_fn(model):
            h = last_state(model, xs, lengths)
            return jnp.mean((h - jnp.sin(xs[:, 0, :1])) ** 2)

        optimizer.update(model, nnx.grad(loss_fn)(model))

    for _ in range(5):
        train_step(model, optimizer, xs, lengths)
    padding = jnp.arange(6) >= lengths[:, None]
    ones = jnp.where(padding[..., None], 1.0, xs)
    h1, h2 = last_state(model, xs, lengths), last_state(model, ones, lengths)
    return {"states": h1, "states_padded_with_ones": h2}
