"""Options of Flax's other layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common import layers as definitions
from common.layers import within
from tests.layers.options.drawing import Draw, mask

# --- recurrent layers --------------------------------------------------------

CELLS = {
    nnx.LSTMCell: definitions.lstm_cell,
    nnx.OptimizedLSTMCell: definitions.lstm_cell,
    nnx.GRUCell: definitions.gru_cell,
    nnx.SimpleCell: definitions.simple_cell,
}


def cells_with_other_functions(draw: Draw) -> Any:
    x, h, c = draw(2, 3), draw(2, 4), draw(2, 4)
    got, want = [], []
    for kind, definition in CELLS.items():
        options: dict[str, Any] = {"activation_fn": nnx.soft_sign}
        functions = {"activation": definitions.soft_sign}
        if kind is nnx.SimpleCell:
            options["dtype"] = None
        else:
            options["gate_fn"] = nnx.hard_sigmoid
            functions["gate"] = definitions.hard_sigmoid
        options["carry_init"] = nnx.initializers.ones
        # Flax prefers the argument of `initialize_carry`.
        with pytest.warns(UserWarning, match="carry_init"):
            cell = kind(3, 4, rngs=nnx.Rngs(0), **options)
            carry = cell.initialize_carry((2, 3), nnx.Rngs(0))
        cell, params = draw.fill(cell)
        got += jax.tree.leaves(carry)
        want += [np.ones((2, 4), np.float32)] * len(jax.tree.leaves(carry))
        if definition is definitions.lstm_cell:
            (new_c, new_h), _ = cell((c, h), x)
            got.append((new_h, new_c))
            want.append(definition(x, h, c, **params, **functions))
        else:
            got.append(cell(h, x)[0])
            want.append(definition(x, h, **params, **functions))
    return got, want


def arguments_of_the_call_of_an_rnn(draw: Draw) -> Any:
    """They take precedence over the arguments of the constructor."""
    layer = nnx.RNN(
        nnx.GRUCell(3, 4, param_dtype="float64", rngs=nnx.Rngs(0)),
        time_major=True,
        unroll=2,
    )
    layer, params = draw.fill(layer)
    xs = draw(2, 5, 3)
    carry, ys = layer(
        jnp.swapaxes(xs, 0, 1),
        return_carry=True,
        reverse=True,
        keep_order=True,
        rngs=nnx.Rngs(0),
    )
    want, (last,) = definitions.rnn(
        "gru", within("cell", params), xs, reverse=True, keep_order=True
    )
    return (jnp.swapaxes(ys, 0, 1), carry), (want, last)


def an_rnn_of_cells_with_dropout(draw: Draw) -> Any:
    """By default each step draws its own mask; `broadcast_rngs` shares one."""

    class Cell(nnx.RNNCellBase):
        def __init__(self, rngs: nnx.Rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, carry: Any, inputs: Any) -> Any:
            return carry, self.dropout(inputs)

        @property
        def num_feature_axes(self) -> int:
            return 1

    def layer(**options: Any) -> Any:
        return nnx.RNN(Cell(nnx.Rngs(dropout=0)), rngs=False, **options)

    xs = jnp.ones((4, 2, 50))
    options = {"initial_carry": jnp.zeros(()), "time_major": True}
    shared = layer(broadcast_rngs="dropout")(xs, **options)
    axes = {"dropout": nnx.Carry}
    single = layer(state_axes=axes)(xs, **options)
    got = [jnp.all(ys == ys[:1]) for ys in (shared, single)]
    return got, [jnp.array(True), jnp.array(False)]


def arguments_of_the_call_of_bidirectional(draw: Draw) -> Any:
    def cell() -> Any:
        return nnx.GRUCell(3, 4, param_dtype="float64", rngs=nnx.Rngs(0))

    layer = nnx.Bidirectional(
        nnx.RNN(cell()), nnx.RNN(cell()), merge_fn=jnp.multiply, rngs=False
    )
    layer, params = draw.fill(layer)
    other: Any = nnx.Bidirectional(
        layer.forward_rnn, layer.backward_rnn, time_major=True
    )
    xs = draw(2, 5, 3)
    turned = jnp.swapaxes(xs, 0, 1)
    carries, ys = layer(
        turned,
        time_major=True,
        return_carry=True,
        # These two have no effect, which is what is compared.
        reverse=True,
        keep_order=True,
        rngs=nnx.Rngs(0),
    )
    want, last = definitions.bidirectional(
        "gru",
        within("forward_rnn.cell", params),
        within("backward_rnn.cell", params),
        xs,
    )
    forward, backward = jnp.split(want, 2, axis=-1)
    return (
        (jnp.swapaxes(ys, 0, 1), carries, jnp.swapaxes(other(turned), 0, 1)),
        (forward * backward, tuple(carry for (carry,) in last), want),
    )


# --- convolutions ------------------------------------------------------------


def a_masked_transposed_convolution(draw: Draw) -> Any:
    where = mask(3, 2, 4)
    layer = nnx.ConvTranspose(
        2, 4, 3, padding="SAME", mask=where, rngs=nnx.Rngs(0)
    )
    layer, params = draw.fill(layer)
    x = draw(2, 5, 2)
    # (kernel, in, out) to (in, out, kernel), flipped.
    keep = np.transpose(where, (1, 2, 0))[..., ::-1]
    weight = jnp.where(keep, params["weight"], 0)
    want = definitions.conv_transpose(
        x, weight, params["bias"], padding="SAME"
    )
    return layer(x), want


# --- reparametrized weights --------------------------------------------------


EPSILON = 0.5


def _unit(x: Any) -> Any:
    """Flax adds epsilon to the square of the norm."""
    return x / jnp.sqrt(jnp.sum(x * x, axis=0) + EPSILON)


def spectral_norm(draw: Draw) -> Any:
    """One call; the layer overwrites the kernel, so two calls differ."""
    options = {"epsilon": EPSILON, "rngs": nnx.Rngs(0)}
    first = nnx.SpectralNorm(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)),
        n_steps=2,
        error_on_non_matrix=True,
        **options,
    )
    second = nnx.SpectralNorm(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), update_stats=False, **options
    )
    x, u = draw(2, 3), draw(4)
    got, want = [], []
    for layer, steps, update in ((first, 2, True), (second, 1, False)):
        kernel, bias = draw(3, 4), draw(4)
        inner: Any = layer.layer_instance
        inner.kernel.set_value(kernel)
        inner.bias.set_value(bias)
        (name,) = [path for path in layer.batch_stats if path[-1] == "u"]
        layer.batch_stats[name].set_value(u[None])
        layer.batch_stats[*name[:-1], "sigma"].set_value(jnp.ones(()))
        y = layer(x, update_stats=update if steps == 2 else None)
        stored = layer.batch_stats[name][...][0]
        # Each step of Flax ends with u, so the steps start from v.
        vector = jnp.zeros(3)
        left = u
        for _ in range(steps):
            vector = _unit(kernel @ left)
            left = _unit(vector @ kernel)
        left, vector = jax.lax.stop_gradient((left, vector))
        weight = kernel.T / (left @ kernel.T @ vector)
        got.append((y, stored))
        want.append(
            (definitions.linear(x, weight, bias), left if update else u)
        )
    return got, want


def weight_norm(draw: Draw) -> Any:
    """One call; the layer overwrites the kernel."""
    kernel, bias, x = draw(3, 4), draw(4), draw(2, 3)
    scales = np.arange(1.0, 4.0)

    def init(key: Any, shape: Any, *dtype: Any) -> Any:
        del key
        assert shape == (3,)
        return jnp.asarray(scales)

    scaled = nnx.WeightNorm(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)),
        feature_axes=0,
        epsilon=EPSILON,
        scale_init=init,
        variable_filter=nnx.Any(nnx.PathContains("kernel")),
        rngs=nnx.Rngs(0),
    )
    plain = nnx.WeightNorm(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)),
        use_scale=False,
        epsilon=EPSILON,
        rngs=nnx.Rngs(0),
    )
    for layer in (scaled, plain):
        inner: Any = layer.layer_instance
        inner.kernel.set_value(kernel)
        inner.bias.set_value(bias)
    weights = (
        _unit(kernel.T) * scales,
        _unit(kernel).T,
    )
    return (
        (scaled(x), plain(x)),
        tuple(definitions.linear(x, weight, bias) for weight in weights),
    )


COMPARISONS = (
    cells_with_other_functions,
    arguments_of_the_call_of_an_rnn,
    an_rnn_of_cells_with_dropout,
    arguments_of_the_call_of_bidirectional,
    a_masked_transposed_convolution,
    spectral_norm,
    weight_norm,
)
