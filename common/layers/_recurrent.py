"""Layers that run a recurrent cell along a sequence."""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from common.layers._layer import Layer, extent, named, within
from common.layers._recurrent_cell import (
    STEPS,
    Carry,
    Cell,
    cell_variables,
    draw_small,
)
from common.protocol import Arrays, Shaped


def rnn(
    cell: Cell,
    params: Arrays,
    xs: Float[Array, "B T I"],
    carry: Carry | None = None,
    lengths: Int[Array, " B"] | None = None,
    *,
    reverse: bool = False,
    keep_order: bool = False,
) -> tuple[Float[Array, "B T H"], Carry]:
    """Runs a cell along each sequence of a batch.

    Entries of a sequence after its length are padding. The cell runs over the
    padding as well, so outputs there are meaningless, but the returned carry
    is the one after the last entry of the sequence. With `reverse`, the
    sequence and its padding are reversed separately.

    Args:
        cell: the kind of cell.
        params: the arrays of the cell, by leaf name.
        xs: a batch of sequences.
        carry: the carry before the first step. Zeros if `None`.
        lengths: the length of each sequence, from 0 to T. T if `None`.
        reverse: whether to run from the end of each sequence to its start.
        keep_order: whether the outputs of a reversed run are put in the order
            of the inputs.

    Returns:
        The hidden state after each step, and the last carry.

    References:
        `flax.nnx.RNN`.
    """
    batch, steps, _ = xs.shape
    if carry is None:
        zeros = jnp.zeros((batch, params["weight_hh"].shape[1]), xs.dtype)
        carry = (zeros, zeros) if cell == "lstm" else (zeros,)
    if lengths is None:
        lengths = jnp.full(batch, steps)
    order = (jnp.arange(steps)[::-1] + lengths[:, None]) % steps

    def turn(x):
        return jnp.take_along_axis(x, order[..., None], axis=1)

    def step(carry, x):
        carry = STEPS[cell](x, *carry, **params)
        return carry, carry

    inputs = turn(xs) if reverse else xs
    _, carries = lax.scan(step, carry, jnp.moveaxis(inputs, 1, 0))
    carries = tuple(jnp.moveaxis(x, 0, 1) for x in carries)
    # The initial carry is the one after 0 steps.
    last = tuple(
        jnp.concatenate((first[:, None], x), 1)[jnp.arange(batch), lengths]
        for first, x in zip(carry, carries, strict=True)
    )
    outputs = turn(carries[0]) if reverse and keep_order else carries[0]
    return outputs, last


def bidirectional(
    cell: Cell,
    forward: Arrays,
    backward: Arrays,
    xs: Float[Array, "B T I"],
    carries: tuple[Carry | None, Carry | None] = (None, None),
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T H2"], tuple[Carry, Carry]]:
    """Runs one cell forward and one backward, and concatenates the outputs.

    Returns:
        The hidden states of both cells after each step, in the order of the
        inputs, and the last carry of each cell.

    References:
        Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997;
        `flax.nnx.Bidirectional`.
    """
    first, second = carries
    ys, first = rnn(cell, forward, xs, first, lengths)
    zs, second = rnn(
        cell, backward, xs, second, lengths, reverse=True, keep_order=True
    )
    return jnp.concatenate((ys, zs), axis=-1), (first, second)


# --- rows --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sequence(Layer):
    """The base of the rows that run cells along a sequence."""

    family = "recurrent"

    input_size: int = 3
    hidden_size: int = 4
    cell: Cell = "lstm"
    return_carry: bool = True
    steps: int = extent(4)
    seq_lengths: bool = extent(False)
    initial_carry: bool = extent(False)

    @property
    def carry(self) -> tuple[Shaped, ...]:
        """One example of each array of the carry."""
        hidden = Shaped((self.hidden_size,))
        return (hidden, hidden) if self.cell == "lstm" else (hidden,)

    @property
    def inputs(self):
        sequence = Shaped((self.steps, self.input_size))
        lengths = (Shaped((), "int"),) if self.seq_lengths else ()
        return sequence, *lengths, *(self.carry if self.initial_carry else ())

    def draw(self, rng, batch_size):
        def one(shaped):
            if shaped.kind == "int":
                return rng.integers(1, self.steps + 1, size=batch_size)
            return draw_small(rng, (batch_size, *shaped.shape))

        return tuple(map(one, self.inputs))

    def split(
        self, args: tuple[Array, ...]
    ) -> tuple[Array | None, tuple[Array, ...] | None]:
        """Separates the lengths and the carry in the arguments after `xs`."""
        lengths, *carry = args if self.seq_lengths else (None, *args)
        return lengths, tuple(carry) if self.initial_carry else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RNN(_Sequence):
    """Runs a cell along a sequence."""

    name = "rnn"

    reverse: bool = False
    keep_order: bool = False

    def variables(self):
        return named(
            "cell",
            cell_variables(self.cell, self.input_size, self.hidden_size),
        )

    def forward(self, params, buffers, xs, *args, key, training):
        lengths, carry = self.split(args)
        ys, carry = rnn(
            self.cell,
            within("cell", params),
            xs,
            carry,
            lengths,
            reverse=self.reverse,
            keep_order=self.keep_order,
        )
        return (carry, ys) if self.return_carry else ys, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bidirectional(_Sequence):
    """Runs one cell forward and one backward along a sequence."""

    name = "bidirectional"

    @property
    def carry(self):
        return super().carry * 2

    def variables(self):
        cell = cell_variables(self.cell, self.input_size, self.hidden_size)
        return {
            **named("forward_rnn.cell", cell),
            **named("backward_rnn.cell", cell),
        }

    def forward(self, params, buffers, xs, *args, key, training):
        lengths, carry = self.split(args)
        half = len(self.carry) // 2
        ys, carry = bidirectional(
            self.cell,
            within("forward_rnn.cell", params),
            within("backward_rnn.cell", params),
            xs,
            (carry[:half], carry[half:]) if carry else (None, None),
            lengths,
        )
        return (carry, ys) if self.return_carry else ys, {}
