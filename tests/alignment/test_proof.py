"""Tests the proof: a wrong mapping must fail, also in training mode."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from common.alignment import align, training
from common.alignment.arrangement import Arrangement, Half
from common.alignment.assembly import assemble
from common.alignment.matching import Pair
from common.alignment.pieces import Piece
from common.alignment.proof import gradient_error, output_error, prove
from common.alignment.sides import Run, Side, find_needed, narrowest_eps
from common.native import NativeModel
from tests.alignment.models import EquinoxModel, inputs, left, right


def two_layers(p, x):
    return jnp.tanh(x @ p["v"]) @ p["w"]


SHAPES = {"v": (4, 4), "w": (4, 4)}


@pytest.fixture(scope="module")
def sides():
    made = [
        Side("left", NativeModel(left(two_layers, **SHAPES)), inputs(3, 4)),
        Side("right", NativeModel(right(two_layers, **SHAPES)), inputs(3, 4)),
    ]
    for side in made:
        side.compile()
    return tuple(made)


def prove_pairs(sides, *pairs):
    halves = [Half.whole(side.array_shapes) for side in sides]
    made = [
        Pair(Piece.whole(a, (4, 4)), Piece.whole(b, (4, 4)), order)
        for a, b, order in pairs
    ]
    shapes = sides[1].array_shapes
    layouts = assemble(made, halves[1], shapes).layouts
    return prove(sides, Arrangement(halves[0], halves[1]), made, layouts)


def test_the_right_mapping_is_proved(sides):
    proof = prove_pairs(sides, ("p.v", "p.v", (0, 1)), ("p.w", "p.w", (0, 1)))
    assert proof.holds(1e-14, 1e-13)


@pytest.mark.parametrize(
    "pairs",
    [
        [("p.v", "p.w", (0, 1)), ("p.w", "p.v", (0, 1))],
        [("p.v", "p.v", (1, 0)), ("p.w", "p.w", (0, 1))],
    ],
    ids=["exchanged", "transposed"],
)
def test_a_wrong_mapping_is_not_proved(sides, pairs):
    proof = prove_pairs(sides, *pairs)
    assert not proof.holds(1e-3, 1e-3)
    assert proof.worst in SHAPES or proof.worst.startswith("p.")


def test_a_wrong_gradient_is_found():
    pair = Pair(Piece.whole("a", (2,)), Piece.whole("x", (2,)), (0,))
    first = Run([], {"a": np.array([1.0, 2.0])})
    second = Run([], {"x": np.array([1.0, 2.5])})
    error, worst = gradient_error(first, second, [pair])
    assert (error, worst) == (0.2, "x")


def test_outputs_of_another_size_or_with_nan_do_not_agree():
    assert output_error([np.ones(2)], [np.ones(3)]) == np.inf
    assert output_error([np.ones(2)], [np.array([1, np.nan])]) == np.inf
    assert output_error([np.ones(2)], [np.array([1, 1.5])]) == 1 / 3


def test_the_narrowest_dtype_is_found():
    def narrow(x):
        return jax.lax.scan(
            lambda c, y: (c, y.astype(jnp.float32) * 2), 0.0, x
        )[1]

    x = jnp.ones((3, 2))
    eps = [
        narrowest_eps(jax.make_jaxpr(f)(x)) for f in (narrow, lambda x: 2 * x)
    ]
    assert eps == [float(jnp.finfo(n).eps) for n in ("float32", "float64")]


def test_the_arrays_that_numpy_converts_are_found_among_many():
    def converted(p, x):
        tables = [np.asarray(p[f"t{i}"]) for i in (1, 2)]
        return x @ p["w"] * sum(tables)

    names = {f"t{i}": (1,) for i in (1, 2)} | {f"b{i}": (2,) for i in range(9)}
    arrays = left(converted, w=(4, 4), **names).p
    model = NativeModel(EquinoxModel(arrays, converted))
    side = Side("left", model, inputs(2, 4))
    assert sorted(find_needed(side)) == ["p.t1", "p.t2"]


class Normalized(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(4, 3, key=key)
        self.norm = eqx.nn.BatchNorm(
            3, "batch", mode="batch", momentum=0.9, eps=1e-5
        )

    def __call__(self, x, state):
        return self.norm(self.linear(x), state)


class Dropped(Normalized):
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        super().__init__(key)
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, key=None):
        return self.norm(self.dropout(self.linear(x), key=key), state)


class FlaxNormalized(nnx.Module):
    def __init__(self, momentum, rngs):
        self.fc = nnx.Linear(4, 3, rngs=rngs)
        self.bn = nnx.BatchNorm(3, momentum=momentum, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        return self.bn(self.fc(x))


@pytest.mark.parametrize("momentum", [0.9, 0.8])
def test_statistics_are_mapped_and_updates_compared(momentum):
    first = eqx.nn.make_with_state(Normalized)(jax.random.key(0))
    second = FlaxNormalized(momentum, nnx.Rngs(0))
    found = align(first, second, inputs(5, 4), progress=False)
    assert found.proved
    assert {"bn.mean", "bn.var"} <= set(found.layouts)
    assert found.training is not None
    assert found.training[0] < 1e-12
    assert (found.training[1] < 1e-12) == (momentum == 0.9)
    assert any("bn.mean differs" in n for n in found.notes) == (
        momentum != 0.9
    )


def test_a_counter_of_a_new_model_is_trained_in_float64():
    with jax.enable_x64(False):
        first = eqx.nn.make_with_state(Normalized)(jax.random.key(0))
    second = FlaxNormalized(0.9, nnx.Rngs(0))
    found = align(first, second, inputs(5, 4), progress=False)
    assert found.training is not None, found.notes
    assert max(found.training) < 1e-12


def broken(native, xs, *, training, key):
    model, state = native
    if training:
        scale = {"bn": 1.0}["norm"]
        xs = scale * xs
    model = eqx.nn.inference_mode(model, value=not training)
    y, state = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )(xs, state)
    return y, state


def test_an_error_in_training_mode_is_shown_with_its_line():
    first = eqx.nn.make_with_state(Normalized)(jax.random.key(0))
    second = FlaxNormalized(0.9, nnx.Rngs(0))
    xs = inputs(5, 4)
    found = align(first, second, xs, left_call=broken, progress=False)
    assert found.proved and found.training is None
    line = inspect.getsourcelines(broken)[1] + 3
    assert found.notes == (
        "training mode was not compared: calling the left model raised "
        f"KeyError ('norm'), at test_proof.py:{line} broken",
    )


def test_a_model_that_draws_in_training_mode_gets_a_key():
    first = eqx.nn.make_with_state(Dropped)(jax.random.key(0))
    second = FlaxNormalized(0.9, nnx.Rngs(0))
    found = align(first, second, inputs(5, 4), progress=False)
    assert found.proved and found.training is not None
    assert any("draw random numbers" in note for note in found.notes)


class Flagged(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))
        self.seen = nnx.BatchStat(jnp.array(False))

    def __call__(self, x):
        self.seen[...] = jnp.array(True)
        return x * self.scale[...]


def test_a_module_may_set_a_flag_in_training_mode():
    side = Side("right", NativeModel(Flagged()), inputs(5, 3))
    outputs, _ = training._train(side, {"scale": np.full(3, 2.0)})
    np.testing.assert_array_equal(outputs[0], 2 * side.xs.reshape(-1))
