"""Models in the styles in which people write Equinox, for `as_nnx`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

SIZE = 4


class Flow(eqx.Module):
    """A normalizing flow: affine couplings, each after a permutation."""

    couplings: list[eqx.nn.MLP]
    permutation: jax.Array  # integers
    mask: jax.Array  # booleans
    scale: float
    size: int = eqx.field(static=True)

    def __init__(self, key):
        keys = jr.split(key, 2)
        half = SIZE // 2
        self.couplings = [
            eqx.nn.MLP(half, SIZE, 8, 1, jnp.tanh, key=key) for key in keys
        ]
        self.permutation = jnp.array([2, 0, 3, 1])
        self.mask = jnp.array([True, True, False, True])
        self.scale = 0.5
        self.size = SIZE

    def log_prob(self, x):
        """Returns the log density of one example."""
        log_det = 0.0
        for coupling in self.couplings:
            first, second = jnp.split(x[self.permutation], 2)
            shift, log_scale = jnp.split(coupling(first), 2)
            log_scale = self.scale * jnp.tanh(log_scale)
            second = (second - shift) * jnp.exp(-log_scale)
            log_det -= log_scale.sum()
            x = jnp.concatenate([first, second])
        x = jnp.where(self.mask, x, 2 * x)
        return log_det - 0.5 * (x**2).sum()

    def sample(self, key, count):
        """Returns examples that are drawn at random."""
        xs = jr.normal(key, (count, self.size))
        return xs + jax.vmap(self.couplings[0])(xs[:, : SIZE // 2])

    @property
    def shape(self):
        return (self.size,)

    @staticmethod
    def double(x):
        return 2 * x

    def __getitem__(self, index):
        return self.couplings[index].layers[0].weight


class Normalized(eqx.Module):
    """Linear layers with a batch norm and a dropout."""

    layers: tuple
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        first, second = jr.split(key)
        self.layers = (
            eqx.nn.Linear(SIZE, SIZE, key=first),
            None,
            jax.nn.relu,
            eqx.nn.Linear(SIZE, 2, key=second),
        )
        self.norm = eqx.nn.BatchNorm(SIZE, "batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)

    def one(self, x, state, key=None):
        x, state = self.norm(self.layers[0](x), state)
        x = self.dropout(self.layers[2](x), key=key)
        return self.layers[3](x), state

    def __call__(self, xs, state, *, key=None):
        keys = None if key is None else jr.split(key, len(xs))
        return jax.vmap(
            self.one,
            axis_name="batch",
            in_axes=(0, None, None if key is None else 0),
            out_axes=(0, None),
        )(xs, state, keys)

    def features(self, xs):
        """Uses no state."""
        return jax.vmap(self.layers[0])(xs)

    def nested(self, xs, state):
        ys, state = self(xs, state)
        return {"ys": ys, "state": state}

    def twice(self, xs, state):
        return state, state

    def reset(self, state):
        return state.set(self.norm.batch_counter, jnp.array(0))

    def other(self, state):
        index = eqx.nn.StateIndex(jnp.zeros(()))
        return eqx.nn.State(index)


class Recurrent(eqx.Module):
    """An LSTM whose method has a `state` that is no `eqx.nn.State`."""

    cell: eqx.nn.LSTMCell
    head: eqx.nn.Shared

    def __init__(self, key):
        self.cell = eqx.nn.LSTMCell(SIZE, SIZE, key=key)
        embedding = eqx.nn.Embedding(SIZE, SIZE, key=key)
        linear = eqx.nn.Linear(SIZE, SIZE, use_bias=False, key=key)
        self.head = eqx.nn.Shared(
            (embedding, linear),
            lambda pair: pair[1].weight,
            lambda pair: pair[0].weight,
        )

    def step(self, token, state):
        embedding, linear = self.head()
        state = self.cell(embedding(token), state)
        return linear(state[0]), state

    def __call__(self, tokens):
        zeros = jnp.zeros(SIZE)
        state = (zeros, zeros)

        def step(state, token):
            y, state = self.step(token, state)
            return state, y

        return jax.lax.scan(step, state, tokens)[1]


class Counter(eqx.Module):
    """Ties one entry of the state in two places."""

    first: eqx.nn.StateIndex
    second: eqx.nn.StateIndex
    weight: jax.Array

    def __init__(self):
        self.first = self.second = eqx.nn.StateIndex(jnp.zeros(()))
        self.weight = jnp.ones(2)

    def __call__(self, x, state):
        state = state.set(self.first, state.get(self.first) + 1)
        return x * self.weight * state.get(self.second), state
