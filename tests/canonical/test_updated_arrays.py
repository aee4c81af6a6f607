"""What a training step updates in a model survives `state` and `load`."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import State, Trainer
from common.protocol import Shaped, Spec, Variable
from common.training import losses
from common.training.subjects import SpecSubject
from impl_equinox.backend import Backend as EquinoxBackend
from impl_flax.backend import Backend as FlaxBackend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting(Spec):
    """A masked matrix, a number of calls, and the last output."""

    name = "counting"
    loss = "mse"

    def optimizer(self):
        return optax.adam(1e-2)

    @property
    def inputs(self):
        return Shaped((3,))

    def variables(self):
        def draw(key, shape):
            return jr.normal(key, shape, jnp.float32)

        def zero(key, shape):
            del key
            return jnp.zeros(shape, jnp.int32 if shape == () else jnp.float32)

        return {
            "weight": Variable((3, 3), draw),
            "calls": Variable((), zero, trainable=False),
            "last": Variable((3,), zero, trainable=False),
        }

    def forward(self, params, buffers, xs, *, key, training):
        del key, training
        return xs @ params["weight"], buffers


class EquinoxModel(eqx.Module):
    weight: jax.Array
    mask: jax.Array
    calls: eqx.nn.StateIndex
    last: eqx.nn.StateIndex
    noise: eqx.nn.StateIndex

    def __init__(self, *, key):
        self.weight = jr.normal(key, (3, 3))
        self.mask = jnp.array([True, False, True])
        self.calls = eqx.nn.StateIndex(jnp.array(0))
        self.last = eqx.nn.StateIndex(jnp.zeros(3))
        self.noise = eqx.nn.StateIndex(key)

    def __call__(self, x, state, key=None):
        training = key is not None
        noise, used = jr.split(state.get(self.noise))
        y = jnp.where(self.mask, x, 0) @ self.weight + state.get(self.last)
        if training:
            y = y + jr.normal(used, y.shape, y.dtype)
            state = state.set(self.calls, state.get(self.calls) + 1)
            mean = jax.lax.pmean(x, "batch")
            state = state.set(self.last, mean)
            state = state.set(self.noise, noise)
        return y, state


class Calls(nnx.Variable):
    """A type of Variable that Flax does not define."""


class FlaxModel(nnx.Module):
    def __init__(self, rngs):
        self.weight = nnx.Param(jr.normal(rngs.params(), (3, 3)))
        self.mask = jnp.array([True, False, True])
        self.calls = Calls(jnp.zeros((), jnp.int32))
        self.last = nnx.Cache(jnp.zeros(3))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, rngs=None):
        y = jnp.where(self.mask, x, 0) @ self.weight[...] + self.last[...]
        if not self.dropout.deterministic:
            self.calls[...] += 1
            self.last[...] = jnp.mean(x, 0)
        return self.dropout(y)


def make(library, seed=0):
    backend, model = {
        "equinox": (EquinoxBackend, EquinoxModel),
        "flax": (FlaxBackend, FlaxModel),
    }[library]
    spec = Counting()
    make_backend = functools.partial(backend, spec, model)
    return Trainer(
        SpecSubject(spec, make_backend, "float64"),
        optimizer=None,
        loss=losses.find_loss(spec.loss),
        metrics={},
        seed=seed,
    )


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_what_a_step_updates_is_saved_and_loaded(
    library, batch, assert_same, tmp_path
):
    trainer = make(library)
    start = trainer.state()
    assert np.array_equal(start.constants["mask"], [True, False, True])
    for _ in range(2):
        trainer.step(*batch)
    trainer.save(tmp_path / "run")
    state = trainer.state()
    assert state.buffers["calls"] == 2
    assert np.any(state.buffers["last"] != 0)
    own = {name for name in state.rng if name.startswith("model.")}
    assert (
        own
        == {
            "equinox": {"model.noise"},
            "flax": {"model.dropout.rngs.key", "model.dropout.rngs.count"},
        }[library]
    )
    changed = {
        k for k in own if not np.array_equal(state.rng[k], start.rng[k])
    }
    assert (
        changed
        == {
            "equinox": {"model.noise"},
            "flax": {"model.dropout.rngs.count"},
        }[library]
    )

    # Another seed gives other weights, another key and another stream.
    other = make(library, seed=1).load(tmp_path / "run")
    assert_same(other.state(), state)
    trainer.step(*batch)
    other.step(*batch)
    assert_same(other.state(), trainer.state())


@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_a_run_that_loses_its_calls_is_seen(library, batch, assert_same):
    trainer = make(library)
    trainer.step(*batch)
    state = trainer.state().flat()
    other = make(library, seed=1)
    forgotten = state | {"buffers.last": np.zeros(3)}
    other.load(State.from_flat(forgotten))
    trainer.step(*batch)
    other.step(*batch)
    with pytest.raises(AssertionError):
        assert_same(other.state(), trainer.state())


def test_a_buffer_that_the_spec_does_not_define_is_refused(monkeypatch):
    class Other(FlaxModel):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.unknown = nnx.Cache(jnp.zeros(2))

    monkeypatch.setitem(globals(), "FlaxModel", Other)
    expected = r"params, buffers: got nothing for \['unknown'\]"
    with pytest.raises(ValueError, match=expected):
        make("flax")
