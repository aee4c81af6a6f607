"""Tests of `port` on pairs of models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common import agreement
from common.native import NativeModel
from common.porting import Plan, plan_port, port
from tests.porting import pairs


def arrays(native):
    return {n: np.asarray(x) for n, x in NativeModel(native).arrays().items()}


def same(left, right):
    """Tells whether two models have equal arrays, bit by bit."""
    ours, theirs = arrays(left), arrays(right)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype
        for n in ours
    )


def close(a, b):
    return agreement.relative_error(np.asarray(a), np.asarray(b)) < 1e-12


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


def test_tied_against_untied():
    source, target = pairs.EqxTied(), pairs.NnxUntied()
    rules = """
    embed -> embed
    embed.weight -> transpose -> head.kernel
    out -> head.bias
    """
    ported = port(source, target, rules=rules)
    assert np.array_equal(
        ported.head.kernel[...], ported.embed.embedding[...].T
    )
    with pytest.raises(ValueError, match="source embed.embedding"):
        port(ported, source, rules=rules)
    again = port(ported, source, rules=rules, ignore=["embed.embedding"])
    assert same(again, source)


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_lstm_gates(kind):
    source = pairs.fill_equinox(pairs.EqxLSTM())
    target = port(source, pairs.NnxLSTM(kind))
    x, h, c = jnp.ones(2), jnp.ones(3), jnp.full(3, 0.5)
    expected, _ = source.cell(x, (h, c))
    _, got = target.cell((c[None], h[None]), x[None])
    assert close(expected, got[0])
    assert same(port(target, pairs.EqxLSTM()), source)


def cnn():
    model, state = eqx.nn.make_with_state(pairs.EqxCNN)()
    model, state = pairs.fill_equinox((model, state))
    counter = state.get(model.norm.batch_counter)
    return model, state.set(model.norm.batch_counter, counter + 3)


FLATTEN = {"head": (4, 6, 3)}
IMAGES = jr.normal(jr.key(1), (3, 2, 3, 1), jnp.float64)


def test_convolutions_and_flatten_both_ways():
    source, target = cnn(), pairs.fill_flax(pairs.NnxCNN())
    options = {"flatten": FLATTEN, "batch_norm": "serve"}
    assert port(source, target, **options) is target
    expected, _ = NativeModel(source).apply(arrays(source), IMAGES)
    got, _ = NativeModel(target).apply(arrays(target), IMAGES)
    assert close(expected, got)
    again = port(target, source, flatten=FLATTEN)
    got, _ = NativeModel(again).apply(arrays(again), IMAGES)
    assert close(expected, got)
    counter = again[1].get(again[0].norm.batch_counter)
    assert int(counter) == 2**30


def test_resume_continues_training():
    source, target = cnn(), pairs.fill_flax(pairs.NnxCNN())
    port(source, target, flatten=FLATTEN, batch_norm="resume")
    for images in (IMAGES, 2 * IMAGES + 1):
        ours = NativeModel(source)
        expected, _ = ours.apply(ours.arrays(), images, training=True)
        theirs = NativeModel(target)
        got, after = theirs.apply(theirs.arrays(), images, training=True)
        assert close(expected, got)
        target = theirs.with_arrays(after)


def test_batch_norm_needs_a_choice():
    with pytest.raises(
        ValueError,
        match=r"batch norm `norm` \(batch to standard\): got no `batch_norm`, "
        r"expected a choice, because .* divides its statistics by 0.271",
    ):
        port(cnn(), pairs.fill_flax(pairs.NnxCNN()), flatten=FLATTEN)


def test_a_dialect_that_cannot_resume():
    target = eqx.nn.make_with_state(pairs.EqxCNN)("ema")
    source = pairs.fill_flax(pairs.NnxCNN())
    options = {"flatten": FLATTEN}
    with pytest.raises(ValueError, match="'ema' also normalizes by"):
        port(source, target, batch_norm="resume", **options)
    with pytest.raises(ValueError, match="got no `batch_norm`"):
        port(source, target, **options)
    model, state = port(source, target, batch_norm="serve", **options)
    assert not state.get(model.norm.ema_first_time_index)
    got, _ = NativeModel((model, state)).apply(arrays((model, state)), IMAGES)
    expected, _ = NativeModel(source).apply(arrays(source), IMAGES)
    assert close(expected, got)


def test_wrong_batch_norm():
    with pytest.raises(ValueError, match="batch_norm: got 'train', expected"):
        port(cnn(), cnn(), batch_norm="train")


def test_one_library():
    source = cnn()
    target = eqx.nn.make_with_state(pairs.EqxCNN)()
    assert same(port(source, target), source)


class Numbered(nnx.Module):
    def __init__(self, first):
        for i in range(first, first + 4):
            layer = nnx.Linear(3, 3, rngs=nnx.Rngs(i))
            setattr(self, f"layer{i}", layer)


def test_numbers_are_never_shifted():
    with pytest.raises(ValueError) as caught:
        port(Numbered(1), Numbered(0))
    message = str(caught.value)
    for i in range(5):
        assert (f"source layer{i}.kernel (3, 3)" in message) == (i > 0)
        assert (f"target layer{i}.kernel (3, 3)" in message) == (i < 4)
    rules = "  layer{i+1}.kernel -> layer{i}.kernel"
    assert rules in message and "layer{i+1}.bias -> layer{i}.bias" in message
    assert "`align(source, target, x)`" in message and "`diff`" in message
    source, target = Numbered(1), Numbered(0)
    port(source, target, rules="layer{i+1} -> layer{i}")
    assert np.array_equal(target.layer0.kernel[...], source.layer1.kernel[...])


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


class Bare(eqx.Module):
    w: jax.Array
    b: jax.Array


class NnxDense(nnx.Module):
    def __init__(self, features=3):
        self.w = nnx.Linear(3, features, rngs=nnx.Rngs(0))


class NnxBare(nnx.Module):
    def __init__(self, shape=(3, 3)):
        self.w = nnx.Param(jnp.ones(shape))
        self.b = nnx.Param(jnp.ones(3))


def test_a_square_array_needs_an_order():
    source = Bare(jnp.arange(9.0).reshape(3, 3), jnp.ones(3))
    with pytest.raises(
        ValueError,
        match=r"w \(3, 3\) -> w \(3, 3\): got an axis order that no",
    ):
        port(source, NnxBare(), dtype="target")
    options = {"dtype": "target"}
    copied = port(source, NnxBare(), rules="w -> copy -> w", **options)
    assert np.array_equal(copied.w[...], source.w)
    turned = port(source, NnxBare(), rules="w -> transpose -> w", **options)
    assert np.array_equal(turned.w[...], source.w.T)
    other = Bare(jnp.arange(6.0).reshape(2, 3), jnp.ones(3))
    port(other, NnxBare((2, 3)), **options)


def test_a_weight_that_meets_a_bare_array():
    class Both(eqx.Module):
        w: Bare

    source = {"w": Bare(jnp.ones((4, 3)), jnp.ones(4))}
    del source
    left = Both(Bare(jnp.arange(12.0).reshape(3, 4), jnp.ones(4)))
    rules = {"w.w": "w.kernel", "w.b": "w.bias"}
    target = NnxDense(4)
    port(left, target, rules=rules, dtype="target")
    assert np.array_equal(target.w.kernel[...], left.w.w)
    square = Both(Bare(jnp.ones((3, 3)), jnp.ones(3)))
    with pytest.raises(ValueError, match="no layer type settles"):
        port(square, NnxDense(), rules=rules, dtype="target")


def test_settings_are_compared():
    plan = plan_port(pairs.EqxMLP(), pairs.NnxMLP(eps=1e-6))
    assert plan.notes == ("`norm`: eps 1e-5 against 1e-6",)
    assert not plan_port(pairs.EqxMLP(), pairs.NnxMLP()).notes


def test_trained_on_one_side_only():
    class Constant(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((2, 3)))
            self.b = nnx.data(jnp.ones(3))

    plan = plan_port(Bare(jnp.ones((2, 3)), jnp.ones(3)), Constant())
    assert plan.notes == ("trained on the left only: b",)


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


WRONG = {
    "nowhere -> norm": "got 'nowhere', which is no array or module",
    "norm.weight norm.scale": "got no arrow, expected `source -> target`",
    "norm.weight -> turn -> norm.scale": "step: got 'turn', expected one of",
    "norm.weight -> reshape(3) -> norm.scale": r"reshape\(3,\): got the shape",
    "norm.weight -> transpose(x) -> norm.scale": "got the step 'transpose",
    "norm -> norm.scale": "got a module on one side and an array on the other",
    "layers.{i}.bias -> norm.bias": "got 2 sources for",
    "norm.weight -> split -> norm.scale": "got no placeholder that only one",
    "layers.0.bias -> layers.1.bias": r"got the shapes \(4,\) and \(3,\)",
    "layers.{i+9}.bias -> layers.{i}.bias": "which is no array or module",
    "layers.{q}q.bias -> layers.{i,i}.bias": "got the placeholder {i,i}",
    "[norm.weight -> stack -> norm.scale": "got brackets that do not match",
    "norm.weight -> copy(1) -> norm.scale": "step: got 'copy'",
    "norm.weight -> flip(a=1) -> norm.scale": "got arguments that it does not",
    "norm weight -> norm.scale": "got the characters 'norm weight'",
}


@pytest.mark.parametrize("rule", WRONG)
def test_wrong_rules(rule):
    with pytest.raises(ValueError, match=WRONG[rule]):
        port(pairs.EqxMLP(), pairs.NnxMLP(), rules=rule)


def test_rules_of_a_wrong_type():
    with pytest.raises(TypeError, match="rules: got list, expected a plan"):
        port(pairs.EqxMLP(), pairs.NnxMLP(), rules=["a -> b"])


def test_a_plan_of_other_models():
    plan = plan_port(pairs.EqxMLP(), pairs.NnxMLP())
    with pytest.raises(ValueError, match="rules: got a plan with the arrays"):
        port(pairs.EqxScan(), pairs.NnxList(), rules=plan)


def test_derive():
    class Scaled(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((2, 3)))
            self.b = nnx.Param(jnp.ones(3))
            self.scale = nnx.Param(jnp.ones(2))

    source = Bare(jnp.ones((2, 3), "float32"), jnp.ones(3, "float32"))
    rules = "derive([0.5, 2.0]) -> scale"
    target = port(source, Scaled(), rules=rules)
    assert target.scale[...].tolist() == [0.5, 2.0]
    plan = plan_port(target, source, rules=rules)
    assert plan.ignored == ("scale",)


def test_a_plan_is_made_without_writing():
    target = pairs.NnxMLP()
    before = arrays(target)
    plan = plan_port(pairs.EqxMLP(), target)
    assert isinstance(plan, Plan)
    assert all(np.array_equal(before[n], x) for n, x in arrays(target).items())


def test_flatten_that_does_not_fit():
    options = {"batch_norm": "serve"}
    target = pairs.fill_flax(pairs.NnxCNN())
    with pytest.raises(ValueError, match=r"flatten 'head': got the sizes"):
        port(cnn(), target, flatten={"head": (4, 4, 3)}, **options)
    with pytest.raises(ValueError, match="got no weight that is matched"):
        port(cnn(), target, flatten={"conv.bias": (4, 6, 3)}, **options)
    with pytest.raises(ValueError, match="two models of one axis order"):
        port(cnn(), cnn(), flatten=FLATTEN)
