"""Models in the styles in which people write NNX, for `as_equinox`."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SIZE = 4
DTYPE = {"param_dtype": jnp.float64}


class Mlp(nnx.Module):
    """Has no state: its `rngs` are used at initialization only."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            [
                nnx.Linear(SIZE, 8, rngs=rngs, **DTYPE),
                jnp.tanh,
                nnx.Linear(8, SIZE, rngs=rngs, **DTYPE),
            ]
        )
        self.out_size = SIZE

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Classifier(nnx.Module):
    """Linear layers with a batch norm and a dropout."""

    def __init__(self, rngs):
        self.first = nnx.Linear(SIZE, SIZE, rngs=rngs, **DTYPE)
        self.norm = nnx.BatchNorm(SIZE, rngs=rngs, **DTYPE)
        # BatchNorm makes its statistics in float32 whatever `param_dtype` is.
        self.norm.mean = nnx.BatchStat(jnp.zeros(SIZE))
        self.norm.var = nnx.BatchStat(jnp.ones(SIZE))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.heads = nnx.Dict(a=nnx.Linear(SIZE, 2, rngs=rngs, **DTYPE))

    def __call__(self, xs):
        xs = nnx.relu(self.norm(self.first(xs)))
        return self.heads["a"](self.dropout(xs))

    def features(self, xs):
        return self.first(xs)


class Flow(nnx.Module):
    """A flow with constants, and with a stream of keys for sampling."""

    def __init__(self, rngs):
        self.net = Mlp(rngs)
        self.permutation = np.array([2, 0, 3, 1])  # integers
        self.mean = jnp.linspace(0.0, 1.0, SIZE)  # no Variable: not trained
        self.calls = nnx.Variable(jnp.array(0))
        self.rngs = rngs.fork()

    def log_prob(self, x):
        self.calls[...] += 1
        x = x[self.permutation] - self.mean
        return -0.5 * ((x - self.net(jnp.roll(x, 1))) ** 2).sum()

    def sample(self, count):
        noise = jax.random.normal(self.rngs.sample(), (count, SIZE))
        return self.mean + self.net(noise)

    @property
    def shape(self):
        return self.mean.shape

    @classmethod
    def make(cls):
        return cls(nnx.Rngs(1))


class Decoder(nnx.Module):
    """A transformer block with a tied embedding, dropout and a cache."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(5, SIZE, rngs=rngs, **DTYPE)
        self.attend = nnx.MultiHeadAttention(
            2, SIZE, decode=True, rngs=rngs, **DTYPE
        )
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = self.embed
        self.attend.init_cache((1, 3, SIZE), dtype=jnp.float64)

    def __call__(self, token):
        x = self.embed(token)[:, None]
        x = x + self.dropout(self.attend(x))
        return self.out.attend(x)[:, 0]


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        cell = nnx.LSTMCell(SIZE, SIZE, rngs=rngs, **DTYPE)
        self.rnn = nnx.RNN(cell, rngs=rngs)

    def __call__(self, xs):
        return self.rnn(xs)


class Restless(nnx.Module):
    """Changes in a call what cannot be changed in Equinox."""

    def __init__(self, rngs):
        self.weight = nnx.Param(jnp.ones(2))
        self.scale = jnp.ones(2)
        self.total = nnx.Variable(jnp.zeros(2))
        self.used = False
        self.inner = nnx.Linear(2, 2, rngs=rngs, **DTYPE)
        self.index = jnp.arange(2)

    @nnx.jit
    def scan(self, x):
        """Returns all Variables from transformations, and changes none."""

        @nnx.scan(in_axes=(None, nnx.Carry), out_axes=nnx.Carry, length=2)
        def step(layer, x):
            return layer(x)

        return step(self.inner, x)

    @nnx.jit
    def write_inside(self, x):
        self.inner.kernel.set_value(2 * self.inner.kernel[...])
        return x

    def write_index(self, x):
        self.index = self.index + 1
        return x

    def write_parameter(self, x):
        self.weight[...] *= 2
        return x

    def write_array(self, x):
        self.scale = 2 * self.scale
        return x

    def write_attribute(self, x):
        self.used = True
        return x

    def make_variable(self, x):
        self.made = nnx.Intermediate(x)
        return x

    def reshape(self, x):
        self.total.set_value(jnp.zeros(3))
        return x

    def variable(self, x):
        return {"total": self.total}
