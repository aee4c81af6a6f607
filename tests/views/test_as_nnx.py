"""`as_nnx`: an Equinox model as a live NNX module."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.errors import TraceContextError

from common import as_equinox, as_nnx
from tests.views.equinox_models import (
    SIZE,
    Counter,
    Flow,
    Normalized,
    Recurrent,
)

STEPS = 3


@pytest.fixture
def flow():
    return Flow(jr.key(0))


@pytest.fixture
def normalized():
    return eqx.nn.make_with_state(Normalized)(jr.key(0))


@pytest.fixture
def xs():
    return jr.normal(jr.key(1), (5, SIZE))


def paths(state):
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def assert_same(left, right):
    assert bool(eqx.tree_equal(left, right, typematch=True))


# --- what each leaf is ------------------------------------------------------


def test_each_leaf_has_its_type(flow, normalized):
    view = as_nnx(flow)
    parameters = paths(nnx.state(view, nnx.Param))
    assert "couplings.0.layers.1.bias" in parameters
    assert len(parameters) == 8
    assert paths(nnx.state(view, nnx.BatchStat)) == set()
    others = nnx.state(view, nnx.Not(nnx.Param))
    assert paths(others) == {"permutation", "mask"}
    view = as_nnx(*normalized)
    assert paths(nnx.state(view, nnx.BatchStat)) == {
        "norm.batch_counter",
        "norm.batch_state_index.0",
        "norm.batch_state_index.1",
    }
    assert isinstance(view.layers[0].weight, nnx.Param)
    assert view.layers[1] is None and view.layers[2] is jax.nn.relu


def test_arrays_that_are_not_trained_are_no_parameters(flow):
    class NonTrainable(eqx.Module):
        tree: object

    class Frozen(eqx.Module):
        inner: NonTrainable
        weight: jax.Array

    model = Frozen(NonTrainable(jnp.ones(2)), jnp.ones(2))
    assert paths(nnx.state(as_nnx(model), nnx.Param)) == {"weight"}
    view = as_nnx(model, trainable=lambda x: False)
    assert paths(nnx.state(view, nnx.Param)) == set()
    mask = jax.tree.map(lambda _: False, flow)
    mask = eqx.tree_at(lambda m: m.couplings[1], mask, replace=True)
    view = as_nnx(flow, trainable=mask)
    assert len(paths(nnx.state(view, nnx.Param))) == 4
    assert_same(view.original(), flow)


def test_an_array_that_is_tied_is_one_variable():
    view = as_nnx(Recurrent(jr.key(0)))
    assert sum("head" in x for x in paths(nnx.state(view, nnx.Param))) == 1
    counter = Counter()
    state = eqx.nn.State(counter)
    view = as_nnx(eqx.nn.delete_init_state(counter), state)
    assert view.first is view.second
    np.testing.assert_array_equal(view(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(view(jnp.ones(2)), 2 * jnp.ones(2))


# --- methods ----------------------------------------------------------------


def test_every_method_and_attribute_is_reachable(flow, xs):
    view = as_nnx(flow)
    assert (view.log_prob(xs[0]) == flow.log_prob(xs[0])).all()
    assert (view.sample(jr.key(3), count=2) == flow.sample(jr.key(3), 2)).all()
    assert (jax.vmap(view.log_prob)(xs) == jax.vmap(flow.log_prob)(xs)).all()
    assert view.shape == (SIZE,) and view.size == SIZE and view.scale == 0.5
    assert view.double(3) == 6
    assert (view[0] == flow[0]).all()
    assert view.couplings[0].depth == 1
    layer = view.couplings[0].layers[0]
    assert (layer(xs[0, :2]) == flow.couplings[0].layers[0](xs[0, :2])).all()
    assert not callable(view) and callable(layer)
    assert view.log_prob.__doc__ == Flow.log_prob.__doc__
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = view.missing


def test_a_method_reads_and_writes_the_state(normalized, xs):
    model, state = normalized
    view = as_nnx(model, state)
    y = view(xs, key=jr.key(2))
    expected, new = model(xs, state, key=jr.key(2))
    assert (y == expected).all()
    assert_same(view.original(), (model, new))
    assert view.features(xs).shape == (5, SIZE)
    assert view.reset() is None
    assert view.norm.batch_counter[...] == 0
    with pytest.raises(TraceContextError):
        jax.jit(lambda xs: view(xs, key=jr.key(2)))(xs)


def test_a_state_that_is_passed_is_the_callers(normalized, xs):
    model, state = normalized
    view = as_nnx(model, state)
    for call in (
        lambda: view(xs, state, key=jr.key(2)),
        lambda: view(xs, state=state, key=jr.key(2)),
    ):
        y, new = call()
        assert_same((y, new), model(xs, state, key=jr.key(2)))
        assert_same(view.original(), normalized)


def test_a_parameter_called_state_may_be_something_else(xs):
    model = Recurrent(jr.key(0))
    view = as_nnx(model)
    carry = (xs[0], xs[1])
    assert_same(
        view.step(jnp.array(1), carry), model.step(jnp.array(1), carry)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nested", r"Normalized.nested: got 1 eqx.nn.State inside of a dict"),
        ("twice", r"Normalized.twice: got 2 eqx.nn.State inside of a tuple"),
        ("other", r"Normalized.other: got a state with an entry .* expected"),
    ],
)
def test_a_result_that_is_ambiguous_is_refused(normalized, xs, name, message):
    view = as_nnx(*normalized)
    view.eval()
    arguments = () if name == "other" else (xs,)
    with pytest.raises(ValueError, match=message):
        getattr(view, name)(*arguments)


# --- modes ------------------------------------------------------------------


def test_modes_are_those_of_nnx(normalized, xs):
    model, state = normalized
    view = as_nnx(model, state)
    inference = nnx.view(view, deterministic=True, use_running_average=True)
    expected, _ = eqx.nn.inference_mode(model)(xs, state)
    assert (inference(xs) == expected).all()
    assert not view.norm.inference and not view.dropout.inference
    view.eval()
    assert view.norm.use_running_average and view.dropout.deterministic
    assert (view(xs) == expected).all()
    assert_same(view.original()[0], eqx.nn.inference_mode(model))
    view.train()
    view.set_attributes(use_running_average=True, raise_if_not_found=True)
    assert view.norm.inference and not view.dropout.inference
    with pytest.raises(ValueError, match="deterministic"):
        nnx.view(as_nnx(Flow(jr.key(0))), deterministic=True)


# --- transforms -------------------------------------------------------------


def test_a_flow_trains_as_in_equinox(flow, xs):
    optimizer = optax.adam(1e-2)

    def loss_of(model, xs):
        return -jax.vmap(model.log_prob)(xs).mean()

    @eqx.filter_jit
    def equinox_step(model, opt_state):
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, xs)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state, loss, grads

    @nnx.jit
    def nnx_step(view, opt):
        loss, grads = nnx.value_and_grad(loss_of)(view, xs)
        opt.update(view, grads)
        return loss, grads

    view = as_nnx(flow)
    opt = nnx.Optimizer(view, optimizer, wrt=nnx.Param)
    opt_state = optimizer.init(eqx.filter(flow, eqx.is_inexact_array))
    model = flow
    for _ in range(STEPS):
        model, opt_state, expected, their_grads = equinox_step(
            model, opt_state
        )
        loss, grads = nnx_step(view, opt)
        assert loss == expected
        assert_same(jax.tree.leaves(grads), sorted_leaves(their_grads, view))
    assert_same(view.original(), model)
    assert not eqx.tree_equal(view.original(), flow)
    grads = nnx.grad(loss_of)(view, xs)
    assert paths(grads) == paths(nnx.state(view, nnx.Param))


def sorted_leaves(grads, view):
    """Returns the leaves of gradients of Equinox in the order of NNX."""
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree_util.tree_flatten_with_path(grads)[0]
    }
    state = nnx.state(view, nnx.Param)
    order = [path for path, _ in nnx.to_flat_state(state)]
    return [leaves[".".join(map(str, path))] for path in order]


def test_a_model_with_state_trains_as_in_equinox(normalized, xs):
    optimizer = optax.sgd(0.1, momentum=0.9)

    @eqx.filter_jit
    def equinox_step(model, state, opt_state, key):
        @eqx.filter_value_and_grad(has_aux=True)
        def loss_of(model):
            ys, new = model(xs, state, key=key)
            return (ys**2).mean(), new

        (loss, state), grads = loss_of(model)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), state, opt_state, loss

    @nnx.jit
    def nnx_step(view, opt, key):
        def loss_of(view):
            return (view(xs, key=key) ** 2).mean()

        loss, grads = nnx.value_and_grad(loss_of)(view)
        opt.update(view, grads)
        return loss

    model, state = normalized
    view = as_nnx(model, state)
    opt = nnx.Optimizer(view, optimizer, wrt=nnx.Param)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for i in range(STEPS):
        model, state, opt_state, expected = equinox_step(
            model, state, opt_state, jr.key(i)
        )
        assert nnx_step(view, opt, jr.key(i)) == expected
    assert_same(view.original(), (model, state))


def test_vmap_carries_the_state_of_each_example(normalized, xs):
    model, state = normalized
    view = as_nnx(model, state)
    axes = nnx.StateAxes({...: None})

    @nnx.vmap(in_axes=(axes, 0, 0), axis_name="batch")
    def call(view, x, key):
        return view.one(x, key=key)

    keys = jr.split(jr.key(2), len(xs))
    assert_same(
        (call(view, xs, keys), view.original()[1]),
        model(xs, state, key=jr.key(2)),
    )


def test_vmap_over_an_ensemble(xs):
    make = eqx.filter_vmap(eqx.nn.make_with_state(Normalized))
    model, state = make(jr.split(jr.key(0), 2))
    view = as_nnx(model, state)
    ys = nnx.vmap(lambda view: view(xs, key=jr.key(2)))(view)
    call = eqx.filter_vmap(lambda m, s: m(xs, s, key=jr.key(2)))
    assert_same((ys, view.original()[1]), call(model, state))


def test_split_and_merge(normalized, xs):
    view = as_nnx(*normalized)
    graphdef, parameters, state = nnx.split(view, nnx.Param, nnx.BatchStat)
    merged = nnx.clone(nnx.merge(graphdef, parameters, state))
    merged(xs, key=jr.key(2))
    assert_same(view.original(), normalized)
    nnx.update(view, nnx.state(merged))
    assert_same(view.original(), merged.original())
    again = nnx.split(as_nnx(*normalized))[0]
    assert again == graphdef and hash(again) == hash(graphdef)
    assert_same(nnx.clone(view).original(), view.original())


def test_orbax_saves_and_restores_the_state(normalized, xs, tmp_path):
    view = as_nnx(*normalized)
    view(xs, key=jr.key(2))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "view", nnx.state(view))
        checkpointer.wait_until_finished()
        other = as_nnx(*eqx.nn.make_with_state(Normalized)(jr.key(5)))
        template = jax.tree.map(
            ocp.utils.to_shape_dtype_struct, nnx.state(other)
        )
        nnx.update(other, checkpointer.restore(tmp_path / "view", template))
    assert_same(other.original(), view.original())


# --- the original -----------------------------------------------------------


def test_the_original_can_be_taken_out_again(flow, normalized):
    assert_same(as_nnx(flow).original(), flow)
    assert_same(as_equinox(as_nnx(flow)), flow)
    assert_same(as_equinox(as_nnx(normalized)), normalized)
    layer = as_nnx(flow).couplings[1].original()
    assert_same(layer, flow.couplings[1])
    part = as_nnx(*normalized).norm.original()
    assert_same(part, (normalized[0].norm, normalized[1]))


def test_views_and_variables_may_be_arguments(xs):
    class Pair(eqx.Module):
        weight: jax.Array

        def dot(self, other, x):
            return (self.weight * other.weight * x).sum()

    left, right = Pair(jnp.ones(2)), Pair(2 * jnp.ones(2))
    view = as_nnx(left)
    assert view.dot(as_nnx(right), view.weight) == 4


def test_a_value_may_be_written(flow):
    view = as_nnx(flow)
    weight = view.couplings[0].layers[0].weight
    weight.set_value(jnp.zeros_like(weight[...]))
    assert (view.original().couplings[0].layers[0].weight == 0).all()
    view.scale = 0.25
    view.permutation = jnp.array([3, 2, 1, 0])
    assert view.original().scale == 0.25
    assert view.original().permutation[0] == 3


@pytest.mark.parametrize("name", ["scale", "mask", "couplings", "size", "new"])
def test_an_assignment_that_would_be_lost_is_refused(flow, name):
    view = as_nnx(flow)
    message = f"Flow.{name}: got Linear, expected .* Write the value"
    with pytest.raises(AttributeError, match=message):
        setattr(view, name, nnx.Linear(1, 1, rngs=nnx.Rngs(0)))


# --- bad input --------------------------------------------------------------


def test_a_state_that_does_not_fit_is_refused(normalized):
    model, state = normalized
    with pytest.raises(ValueError, match="state of Normalized: got none"):
        as_nnx(model)
    _, other = eqx.nn.make_with_state(Counter)()
    with pytest.raises(ValueError, match="got no entry for 2 StateIndexes"):
        as_nnx(model, other)
    with pytest.raises(ValueError, match="and 2 entries that no StateIndex"):
        as_nnx(Flow(jr.key(0)), state)
    with pytest.raises(TypeError, match="got dict, expected an eqx.nn.State"):
        as_nnx(model, {})
    with pytest.raises(ValueError, match="got a StateIndex with its initial"):
        as_nnx(Normalized(jr.key(0)))


def test_other_objects_are_refused(flow):
    with pytest.raises(TypeError, match="as_nnx: got an NNX module, Linear"):
        as_nnx(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match="model: got function, expected"):
        as_nnx(jax.vmap)
    with pytest.raises(TypeError, match="model: got list, expected an eqx"):
        as_nnx([flow])
    with pytest.raises(TypeError, match="trainable: got .* expected None"):
        as_equinox(as_nnx(flow), trainable=nnx.Param)
