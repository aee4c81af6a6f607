"""`as_equinox`: an NNX module as a live Equinox model."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import as_equinox, as_nnx
from tests.views.nnx_models import (
    SIZE,
    Classifier,
    Decoder,
    Flow,
    Mlp,
    Recurrent,
    Restless,
)

STEPS = 3


@pytest.fixture
def classifier():
    return Classifier(nnx.Rngs(0))


@pytest.fixture
def xs():
    return jr.normal(jr.key(1), (5, SIZE))


def assert_same(left, right):
    assert bool(eqx.tree_equal(left, right, typematch=True))


def assert_same_module(left, right):
    """Checks the structure, and every value but for the type of keys."""
    assert nnx.split(left)[0] == nnx.split(right)[0]
    assert_same(leaves_of(left), leaves_of(right))


def leaves_of(module):
    leaves = jax.tree.leaves(nnx.state(module))
    return [np.asarray(jr.key_data(x) if is_key(x) else x) for x in leaves]


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def trained(view):
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        eqx.filter(view, eqx.is_inexact_array)
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in leaves
    }


# --- what each leaf is ------------------------------------------------------


def test_a_module_without_state_is_a_model(xs):
    module = Mlp(nnx.Rngs(0))
    view = as_equinox(module)
    assert eqx.Module in type(view).__mro__
    assert trained(view) == {
        "layers.0.kernel",
        "layers.0.bias",
        "layers.2.kernel",
        "layers.2.bias",
    }
    assert (view(xs) == module(xs)).all()
    assert (jax.vmap(view)(xs) == module(xs)).all()
    assert (view.layers[0](xs) == module.layers[0](xs)).all()
    assert view.layers[1] is jnp.tanh and view.out_size == SIZE
    assert view.layers[2].out_features == SIZE
    assert_same_module(view.original(), module)
    assert not hasattr(view, "missing")


def test_parameters_are_leaves_and_the_rest_is_state():
    view, state = as_equinox(Flow(nnx.Rngs(0)))
    assert len(trained(view)) == 4
    assert view.permutation.dtype == np.dtype(int)
    names = {leaf.split(".", 1)[1] for leaf in state.tree_flatten()[1]}
    assert names == {
        "mean",
        "calls",
        *(f"rngs.default.{name}" for name in ("count", "key")),
    }
    view, state = as_equinox(Classifier(nnx.Rngs(0)))
    assert (state.get(view.norm.var) == 1).all()
    nothing, _ = as_equinox(Mlp(nnx.Rngs(0)), trainable=nnx.BatchStat)
    assert trained(nothing) == set()


def test_a_tied_array_is_one_leaf():
    module = Decoder(nnx.Rngs(0))
    view, state = as_equinox(module)
    assert "embed.embedding" in trained(view)
    assert not any(name.startswith("out.") for name in trained(view))
    outside = "Embed.attend: got a layer that shares the arrays"
    with pytest.raises(ValueError, match=outside):
        view.out.attend(jnp.ones((1, SIZE)))
    assert view.embed.attend(jnp.ones((1, SIZE))).shape == (1, 5)
    original = view.original(state)
    assert original.out is original.embed


def test_a_tied_layer_has_one_state(xs):
    module = nnx.Sequential(*[nnx.BatchNorm(SIZE, rngs=nnx.Rngs(0))] * 2)
    view, state = as_equinox(module)
    assert len(state.tree_flatten()[1]) == 2
    y, state = view(xs.astype("float32"), state)
    assert (y == module(xs.astype("float32"))).all()
    first, second = view.layers
    assert_same(state.get(second.mean), state.get(first.mean))
    assert_same_module(view.original(state), module)


# --- methods ----------------------------------------------------------------


def test_every_method_takes_and_returns_the_state(xs):
    module = Flow(nnx.Rngs(0))
    view, state = as_equinox(module)
    assert view.shape == (SIZE,)
    assert type(view.make()) is Flow
    result, state = view.log_prob(xs[0], state)
    assert result == module.log_prob(xs[0])
    result, state = view.sample(state=state, count=2)
    assert (result == module.sample(2)).all()
    result, state = view.sample(2, state)
    assert (result == module.sample(2)).all()
    assert state.get(view.calls) == 1
    assert_same_module(view.original(state), module)
    assert_same_module(as_nnx(view, state), module)
    old = state
    _, state = view.log_prob(xs[0], state)
    with pytest.raises(ValueError, match="Attempted to use old state"):
        view.log_prob(xs[0], old)


def test_a_layer_takes_the_state_of_the_model(classifier, xs):
    view, state = as_equinox(classifier)
    result, state = view.norm(xs, state)
    assert (result == classifier.norm(xs)).all()
    assert (view.first(xs) == classifier.first(xs)).all()
    same, again = view.first(xs, state)
    assert again is state and (same == classifier.first(xs)).all()
    with pytest.raises(TypeError, match="BatchNorm.__call__: got no state"):
        view.norm(xs)
    # Only what a method could use must be there.
    with pytest.raises(TypeError, match="Classifier.features: got no state"):
        view.features(xs)


def test_dropout_and_cache_are_state():
    module = Decoder(nnx.Rngs(0))
    view, state = as_equinox(module)
    start = state

    @eqx.filter_jit
    def call(view, token, state):
        return view(token, state)

    for token in (1, 3, 2):
        token = jnp.array([token])
        y, state = call(view, token, state)
        assert (y == nnx.jit(Decoder.__call__)(module, token)).all()
    assert state.get(view.attend.cache_index) == 3
    assert_same_module(view.original(state), module)
    # Under `filter_jit`, a state is a value that can be used again.
    assert start.get(view.attend.cache_index) == 0


def test_an_lstm_is_the_same(xs):
    module = Recurrent(nnx.Rngs(0))
    view, state = as_equinox(module)
    y, _ = view(xs[None], state)
    assert (y == module(xs[None])).all()


def test_variables_in_the_outputs_are_values():
    view, state = as_equinox(Restless(nnx.Rngs(0)))
    outputs, _ = view.variable(1.0, state)
    assert (outputs["total"] == 0).all()


# --- transforms -------------------------------------------------------------


def test_a_classifier_trains_as_in_nnx(classifier, xs):
    optimizer = optax.sgd(0.1, momentum=0.9)

    @nnx.jit
    def nnx_step(module, opt):
        def loss_of(module):
            return (module(xs) ** 2).mean()

        loss, grads = nnx.value_and_grad(loss_of)(module)
        opt.update(module, grads)
        return loss, grads

    @eqx.filter_jit
    def equinox_step(view, state, opt_state):
        @eqx.filter_value_and_grad(has_aux=True)
        def loss_of(view):
            ys, new = view(xs, state)
            return (ys**2).mean(), new

        (loss, state), grads = loss_of(view)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(view, updates), state, opt_state, loss, grads

    view, state = as_equinox(classifier)
    opt = nnx.Optimizer(classifier, optimizer, wrt=nnx.Param)
    opt_state = optimizer.init(eqx.filter(view, eqx.is_inexact_array))
    for _ in range(STEPS):
        expected, their_grads = nnx_step(classifier, opt)
        view, state, opt_state, loss, grads = equinox_step(
            view, state, opt_state
        )
        assert loss == expected
        assert_same(jax.tree.leaves(grads), jax.tree.leaves(their_grads))
    assert_same_module(view.original(state), classifier)
    assert eqx.filter_grad(lambda m: m.first(xs).sum())(
        view
    ).norm.bias is not (None)


def test_partition_combine_and_tree_at(classifier):
    view, state = as_equinox(classifier)
    parameters, rest = eqx.partition(view, eqx.is_inexact_array)
    assert_same(eqx.combine(parameters, rest), view)
    view = eqx.tree_at(
        lambda m: m.first.kernel, view, replace_fn=jnp.zeros_like
    )
    assert (view.original(state).first.kernel[...] == 0).all()
    again, _ = as_equinox(classifier)
    assert jax.tree.structure(again) == jax.tree.structure(view)
    assert hash(jax.tree.structure(again)) == hash(jax.tree.structure(view))


def test_inference_mode(classifier, xs):
    view, state = as_equinox(classifier)
    inference = eqx.nn.inference_mode(view)
    y, new = inference(xs, state)
    expected = nnx.view(
        classifier, deterministic=True, use_running_average=True
    )
    assert (y == expected(xs)).all()
    assert new is state
    assert inference.original(state).norm.use_running_average
    assert_same(eqx.nn.inference_mode(inference, value=False), view)


def test_leaves_are_serialised(classifier, xs, tmp_path):
    view, state = as_equinox(classifier)
    _, state = view(xs, state)
    eqx.tree_serialise_leaves(tmp_path / "view.eqx", (view, state))
    like = as_equinox(Classifier(nnx.Rngs(5)))
    read = eqx.tree_deserialise_leaves(tmp_path / "view.eqx", like)
    assert_same(read, (view, state))
    assert_same_module(as_nnx(*read), view.original(state))


def test_vmap_over_an_ensemble(xs):
    @eqx.filter_vmap
    def make(key):
        return as_equinox(Classifier(nnx.Rngs(key)))

    view, state = make(jr.split(jr.key(0), 2))
    ys, state = eqx.filter_vmap(lambda m, s: m(xs, s))(view, state)
    keys = jr.split(jr.key(0), 2)
    module = nnx.vmap(lambda key: Classifier(nnx.Rngs(key)))(keys)
    assert (ys == nnx.vmap(lambda module: module(xs))(module)).all()
    assert_same(state.get(view.norm.mean), module.norm.mean[...])


# --- what is refused --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("write_parameter", "writes to the parameter 'weight', expected"),
        ("write_inside", "writes to the parameter 'inner.kernel', expected"),
        ("write_index", "writes to the constant 'index', expected"),
        ("write_attribute", r"structure of the module \(a static attribute"),
        ("make_variable", r"structure of the module \(made\), expected"),
        ("reshape", r"total: got float64\[3\], expected float64\[2\], as"),
    ],
)
def test_a_call_that_equinox_could_not_carry_is_refused(name, message):
    view, state = as_equinox(Restless(nnx.Rngs(0)))
    method: Any = getattr(view, name)
    for call in (method, eqx.filter_jit(method)):
        with pytest.raises(ValueError, match=f"Restless.{name}.*{message}"):
            call(1.0, state)


def test_transformations_inside_of_a_method_change_no_parameters():
    module: Any = Restless(nnx.Rngs(0))
    view, state = as_equinox(module)
    x = jnp.ones((1, 2))
    for call in (view.scan, eqx.filter_jit(view.scan)):
        y, state = call(x, state)
        assert (y == module.scan(x)).all()


def test_an_array_without_a_variable_may_be_assigned():
    view, state = as_equinox(Restless(nnx.Rngs(0)))
    _, state = view.write_array(1.0, state)
    assert (state.get(view.scale) == 2).all()


def test_a_state_that_does_not_fit_is_refused(classifier, xs):
    view, state = as_equinox(classifier)
    _, other = as_equinox(Flow(nnx.Rngs(0)))
    for call in (view, lambda *args: view.original(*args[1:])):
        with pytest.raises(ValueError, match="got a state without an entry"):
            call(xs, other)
        with pytest.raises(TypeError, match="expected an eqx.nn.State"):
            call(xs)
    with pytest.raises(TypeError, match="got dict, expected an eqx.nn.State"):
        view.original({})
    with pytest.raises(TypeError, match="got 2 states, expected one"):
        view(state, state=state)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="as_equinox: got an Equinox model"):
        as_equinox(eqx.nn.Identity())
    with pytest.raises(TypeError, match="module: got Rngs, expected an nnx"):
        as_equinox(nnx.Rngs(0))
    with pytest.raises(TypeError, match="model: got int, expected"):
        as_equinox(3)


def test_a_module_without_values_is_refused():
    abstract = nnx.eval_shape(lambda: Mlp(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="bias: got ShapeDtypeStruct, expec"):
        as_equinox(abstract)


def test_a_module_that_contains_itself_is_refused():
    module: Any = Mlp(nnx.Rngs(0))
    module.itself = module
    with pytest.raises(ValueError, match="got a module that contains itself"):
        as_equinox(module)


def test_a_dropout_without_rngs_is_refused(xs):
    """As in NNX; the error is Flax's own."""
    view = as_equinox(nnx.Dropout(0.5))
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        view(xs)
    assert view(xs, rngs=nnx.Rngs(0)).shape == xs.shape


def test_a_fixed_setting_cannot_be_changed(xs):
    view = as_equinox(Mlp(nnx.Rngs(0)))
    view = eqx.tree_at(lambda m: m.layers[1], view, jnp.sin)
    with pytest.raises(ValueError, match="layers.1: got .* cannot be changed"):
        view(xs)
