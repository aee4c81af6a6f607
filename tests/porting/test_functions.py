"""Tests of `port` on pairs of models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.porting import Plan, plan_port, port
from tests.porting import pairs
from tests.porting.pairs import arrays, close, same

XS = jr.normal(jr.key(3), (5, 4), jnp.float64)


def test_equal_names_both_ways():
    source = pairs.fill_equinox(pairs.EqxMLP())
    target = pairs.NnxMLP()
    assert port(source, target) is target
    assert close(jax.vmap(source)(XS), target(XS))
    again = port(target, pairs.EqxMLP(jr.key(8)))
    assert isinstance(again, pairs.EqxMLP) and same(again, source)


def test_the_source_shares_no_memory_with_the_target():
    source = pairs.EqxMLP()
    before = arrays(source)
    target = port(source, pairs.NnxMLP())
    pairs.fill_flax(target, 5)
    for x in jax.tree.leaves(nnx.state(target)):
        x.delete()
    after = arrays(source)
    assert all(np.array_equal(before[n], after[n]) for n in before)


def test_fused_and_shifted_both_ways():
    source = pairs.fill_equinox(pairs.EqxAttention())
    target = port(source, pairs.NnxAttention(), rules=pairs.ATTENTION)
    assert close(source(XS), target(XS))
    again = port(target, pairs.EqxAttention(), rules=pairs.ATTENTION)
    assert same(again, source)


def test_rules_of_a_plan_port_the_same():
    source, target = pairs.EqxAttention(), pairs.NnxAttention()
    plan = plan_port(source, target, rules=pairs.ATTENTION)
    assert plan.rules.splitlines() == [
        "blocks.{i}.out.weight -> transpose -> layer{i+1}.o_proj.kernel",
        "blocks.{i}.out.bias -> layer{i+1}.o_proj.bias",
        "blocks.{i}.qkv.weight -> split -> transpose -> "
        "layer{i+1}.{q,k,v}_proj.kernel",
        "blocks.{i}.qkv.bias -> split -> layer{i+1}.{q,k,v}_proj.bias",
    ]
    for rules in (plan, plan.rules, plan.inverse(), plan.inverse().rules):
        assert plan_port(source, target, rules=rules) == plan
        back = plan_port(target, source, rules=rules)
        assert back == plan.inverse()


def test_stacked_against_a_list_both_ways():
    source = pairs.fill_equinox(pairs.EqxScan())
    target = port(source, pairs.NnxList(), rules=pairs.SCAN)
    assert close(jax.vmap(source)(XS[:, :3]), target(XS[:, :3]))
    assert same(port(target, pairs.EqxScan(), rules=pairs.SCAN), source)


TIED = """
embed -> embed
embed.weight -> transpose -> head.kernel
out -> head.bias
"""


def test_tied_against_untied():
    source, target = pairs.EqxTied(), pairs.NnxUntied()
    rules = TIED
    ported = port(source, target, rules=rules)
    assert np.array_equal(
        ported.head.kernel[...], ported.embed.embedding[...].T
    )
    assert same(port(ported, pairs.EqxTied(), rules=rules), source)
    plan = plan_port(source, target, rules=rules)
    back = plan_port(ported, source, rules=rules)
    assert "the same values: " in str(back)
    for way in (plan, plan.rules, back, back.rules, plan.inverse()):
        assert plan_port(source, target, rules=way).layouts == plan.layouts
        assert same(port(ported, pairs.EqxTied(), rules=way), source)


def test_tied_arrays_that_differ_are_refused():
    source = pairs.EqxTied()
    untied = port(source, pairs.NnxUntied(), rules=TIED)
    untied.head.kernel[...] *= 2
    with pytest.raises(ValueError, match=r"source '\S+': got other values"):
        port(untied, source, rules=TIED)
    plan = plan_port(untied, source, rules=TIED)
    (name,) = plan.copies
    again = port(untied, pairs.EqxTied(), rules=TIED, ignore=[name])
    kept = untied.embed.embedding[...]
    if name.startswith("embed"):
        kept = untied.head.kernel[...].T
    assert np.array_equal(again.embed.weight, kept)


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_lstm_gates(kind):
    source = pairs.fill_equinox(pairs.EqxLSTM())
    target = port(source, pairs.NnxLSTM(kind))
    x, h, c = jnp.ones(2), jnp.ones(3), jnp.full(3, 0.5)
    expected, _ = source.cell(x, (h, c))
    _, got = target.cell((c[None], h[None]), x[None])
    assert close(expected, got[0])
    assert same(port(target, pairs.EqxLSTM()), source)


def test_one_library():
    source = pairs.cnn()
    target = eqx.nn.make_with_state(pairs.EqxCNN)()
    assert same(port(source, target), source)


def test_ignore_and_keep():
    class Bigger(pairs.NnxMLP):
        def __init__(self):
            super().__init__()
            self.head = nnx.Linear(3, 2, rngs=nnx.Rngs(5))

    source, target = pairs.EqxMLP(), Bigger()
    with pytest.raises(ValueError, match=r"target head.kernel \(3, 2\)"):
        port(source, target)
    kernel = np.asarray(target.head.kernel[...])
    plan = plan_port(source, target, keep=["head"])
    assert plan.kept == ("head.bias", "head.kernel")
    port(source, target, keep=["head"])
    assert np.array_equal(target.head.kernel[...], kernel)
    with pytest.raises(ValueError, match="source head.bias .* magnitude 0"):
        port(target, source)
    assert same(port(target, pairs.EqxMLP(jr.key(4)), ignore="head"), source)


def test_dtypes():
    source = pairs.EqxMLP()
    target = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
    norm = eqx.nn.LayerNorm(4)
    with pytest.raises(
        ValueError, match="dtype: got .*scale of float64 against float32"
    ):
        port(norm, target)
    assert port(norm, target, dtype="target").scale.dtype == jnp.float32
    assert port(norm, target, dtype="source").scale.dtype == jnp.float64
    assert port(norm, target, dtype="bfloat16").scale.dtype == jnp.bfloat16
    del source


def test_nan():
    source = pairs.EqxMLP()
    source = eqx.tree_at(lambda m: m.norm.bias, source, jnp.full(4, jnp.nan))
    target = pairs.NnxMLP()
    before = arrays(target)
    with pytest.raises(ValueError, match=r"got NaN in \['norm.bias'\]"):
        port(source, target)
    assert all(np.array_equal(before[n], x) for n, x in arrays(target).items())


def test_no_arrays():
    with pytest.raises(ValueError, match="source: got a model with no arrays"):
        port(eqx.nn.Identity(), pairs.NnxMLP())
    with pytest.raises(ValueError, match="target: got a model with no arrays"):
        port(pairs.EqxMLP(), eqx.nn.Identity())


def test_neither_library():
    with pytest.raises(TypeError, match="expected an Equinox model"):
        port(pairs.EqxMLP(), {"w": jnp.ones(3)})
    with pytest.raises(TypeError, match="expected an Equinox model"):
        port(3, pairs.EqxMLP())


def test_nothing_is_half_written(monkeypatch):
    target = pairs.NnxMLP()
    before = arrays(target)
    original = nnx.Param.set_value
    calls = []

    def fail(self, *args, **options):
        calls.append(self)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return original(self, *args, **options)

    monkeypatch.setattr(nnx.Param, "set_value", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        port(pairs.EqxMLP(), target)
    assert len(calls) > 3
    assert all(np.array_equal(before[n], x) for n, x in arrays(target).items())


def test_abstract_targets():
    source = pairs.EqxMLP()
    target = nnx.eval_shape(pairs.NnxMLP)
    port(source, target)
    assert close(jax.vmap(source)(XS), target(XS))
    again = port(target, eqx.filter_eval_shape(pairs.EqxMLP))
    assert same(again, source)
    with pytest.raises(ValueError, match="got shapes without values"):
        port(eqx.filter_eval_shape(pairs.EqxMLP), target)


def test_sharding_and_metadata_are_kept():
    target = pairs.NnxMLP()
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    kernel = target.layers[0].kernel
    kernel.set_value(jax.device_put(kernel[...], spec))
    kernel.set_metadata(note="mine")
    port(pairs.EqxMLP(), target)
    assert kernel is target.layers[0].kernel
    assert kernel[...].sharding == spec
    assert kernel.get_metadata()["note"] == "mine"


def test_a_plan_is_made_without_writing():
    target = pairs.NnxMLP()
    before = arrays(target)
    plan = plan_port(pairs.EqxMLP(), target)
    assert isinstance(plan, Plan)
    assert all(np.array_equal(before[n], x) for n, x in arrays(target).items())
