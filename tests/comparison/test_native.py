"""`compare` on two models finds planted faults, and says where they are."""

import json
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import EquivalenceError, assert_equivalent, build, compare
from common.layouts import Layout, Transpose
from tests.comparison import native_pair as pair
from tests.conftest import exhaustive_but

FAULTS = {
    "eps": (
        {"eps": 1e-6},
        "forward",
        "eps 1e-05 against 1e-06",
        "jnp.sqrt(var + self.fault.eps)",
    ),
    "gelu": (
        {"approximate": True},
        "forward",
        "erf against tanh gelu",
        "nnx.gelu(x",
    ),
    "transposed-weight": (
        {"transposed": True},
        "forward",
        "agrees after transposing the weight",
        "mixer if fault.transposed",
    ),
    "flattened": (
        {"flattened": True},
        "forward",
        "flattened in another order: (2, 2) with the axes (1, 0)",
        "x.reshape(-1, 2, 2)",
    ),
    "cast": (
        {"casts": "bfloat16"},
        "forward",
        "only the right casts to bfloat16",
        "x.astype(fault.casts)",
    ),
    "unbiased-variance": (
        {"unbiased": True},
        "buffers",
        "ratio N/(N-1) with N = 6: biased variance on the left",
        "len(x) / (len(x) - 1)",
    ),
    "momentum": (
        {"momentum": 0.99},
        "buffers",
        "the constant 0.1 against 0.01",
        "self.mean[...] = old * self.mean[...]",
    ),
    "stale-buffer": (
        {"stale": True},
        "buffers",
        "the right does not update it",
        "",
    ),
    "stop-gradient": (
        {"stops": True},
        "gradients",
        "it is zero on the right only",
        "",
    ),
    "inference-writes": ({"overwrites": True}, "overwritten", "", ""),
}
QUICK = ("eps", "unbiased-variance", "stop-gradient")


def line_of(text: str) -> str:
    """Returns the number of the line of the pair that holds a text."""
    lines = pathlib.Path(pair.__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if text in line]
    return f"native_pair.py:{number} "


def compare_pair(dtype: str = "float64", steps: int = 1, **fault: Any):
    """Compares the pair with a fault."""
    return compare(
        pair.left(dtype),
        pair.right(dtype, **fault),
        pair.inputs(dtype),
        rules=pair.RULES,
        steps=steps,
        carry=True,
    )


@pytest.mark.parametrize("name", exhaustive_but(FAULTS, *QUICK))
def test_a_fault_is_found_and_explained(name):
    fault, quantity, hint, source = FAULTS[name]
    report = compare_pair(**fault)
    found = report.first_divergence
    assert found is not None, str(report)
    assert found.quantity == quantity, str(report)
    assert hint in found.hint, str(report)
    if source:
        assert found.lines[1].startswith(line_of(source)), str(report)
    assert all(line in report.explanation for line in found.lines)


def test_without_a_fault_all_agree():
    """In float64 and float32, with every quantity."""
    report = compare_pair("float32", steps=2)
    assert report.ok, str(report)
    assert {row.dtype for row in report.rows} == {"float64", "float32"}
    assert {row.quantity for row in report.rows} >= {
        "forward",
        "training",
        "loss",
        "buffers",
        "gradients",
        "update",
        "trajectory",
        "parameters",
        "moments",
        "eval",
        "overwritten",
    }
    assert "all agree" in str(report)


def test_a_cast_to_the_own_dtype_is_a_ceiling():
    """As of a softmax that is computed in float32."""
    report = compare_pair("float32", casts="float32")
    assert report.ok, str(report)
    (note,) = [note for note in report.notes if "ceiling" in note]
    assert note.startswith(
        "precision ceiling of flax: float32 at "
        + line_of("x.astype(fault.casts)")
    )


def test_dropout_leaves_out_what_cannot_be_compared():
    report = compare_pair(dropout=0.5)
    assert report.ok, str(report)
    quantities = {row.quantity for row in report.rows}
    assert not quantities & {"training", "buffers"}
    assert "flax draws random numbers in training mode" in str(report)
    assert "left out: outputs and buffers in training mode" in str(report)


class Affine(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(x)


class Other(nnx.Module):
    def __init__(self, size=3):
        self.linear = nnx.Linear(size, 3, param_dtype=float, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(x)


def affine():
    return Affine(eqx.nn.Linear(3, 3, key=jr.key(0)))


def ported() -> Other:
    model = affine()
    other = Other()
    other.linear.kernel[...] = model.linear.weight.T
    assert other.linear.bias is not None
    other.linear.bias[...] = model.linear.bias
    return other


XS = np.random.default_rng(0).normal(size=(4, 3))


def test_equal_models_are_equivalent():
    assert assert_equivalent(affine(), ported(), XS, steps=1).ok


def test_other_arrays_are_the_first_divergence():
    """And everything else is judged from those of the left."""
    other = ported()
    other.linear.kernel[...] = other.linear.kernel[...].T
    with pytest.raises(EquivalenceError, match="DISAGREE. state") as caught:
        assert_equivalent(affine(), other, XS, steps=1)
    report = caught.value.report
    found = report.first_divergence
    assert found is not None
    assert found.array == "linear.weight ~ linear.kernel"
    assert found.hint == "agrees after transposing (1, 0)"
    failed = {row.quantity for row in report.rows if not row.ok}
    assert failed == {"state"}
    assert "1 array differs" in str(caught.value)


def test_arrays_may_be_left_out():
    assert compare(affine(), Other(), XS, steps=1, carry=True).ok


def test_the_models_do_not_change():
    left, right = affine(), ported()
    before = np.asarray(right.linear.kernel[...])
    compare(left, right, XS, steps=1)
    assert np.array_equal(right.linear.kernel[...], before)
    assert right.linear.kernel[...].dtype == jnp.float64


@pytest.mark.parametrize("form", ["layouts", "text"])
def test_rules_say_what_names_do_not(form):
    rules = {
        "linear.kernel": Layout.of("linear.weight", (3, 3), Transpose((1, 0))),
        "linear.bias": Layout.of("linear.bias", (3,)),
    }
    text = (
        "linear.weight -> transpose -> linear.kernel\n"
        "linear.bias -> linear.bias"
    )
    report = compare(
        affine(),
        ported(),
        XS,
        steps=1,
        rules=rules if form == "layouts" else text,
    )
    assert report.ok, str(report)
    assert "arrays matched by the given" in report.explanation


def test_adapters_and_pytrees():
    """One model takes and returns dicts, the other tuples."""

    def left_call(model, xs, *, training, key):
        del training, key
        y = jax.vmap(model)(xs["x"])
        return {"a": y, "b": y.sum(-1)}, None

    def right_call(model, xs, *, training, key):
        del training, key
        y = model(xs["x"])
        return (y, y.sum(-1)), model

    report = compare(
        affine(),
        ported(),
        {"x": XS},
        {"a": XS, "b": XS.sum(-1)},
        left_call=left_call,
        right_call=right_call,
        optimizer=optax.sgd(0.1),
        steps=1,
    )
    assert report.ok, str(report)
    assert "loss: the mean squared error" in report.notes
    assert any("different containers" in note for note in report.notes)


class Tabled(Affine):
    table: jax.Array

    def __call__(self, x):
        return super().__call__(x * np.asarray(self.table))


def test_an_array_that_numpy_reads_is_a_constant():
    model = Tabled(**vars(affine()), table=jnp.ones(3))
    rules = (
        "linear.weight -> transpose -> linear.kernel\n"
        "linear.bias -> linear.bias\ntable -> nothing"
    )
    report = compare(model, ported(), XS, rules=rules, steps=1)
    assert report.ok, str(report)
    assert any(
        "constants on the left" in note and note.endswith(": table")
        for note in report.notes
    )
    twos = eqx.tree_at(lambda model: model.table, model, 2 * jnp.ones(3))
    assert not compare(twos, ported(), XS, rules=rules, steps=1).ok


def test_names_that_differ_are_aligned():
    class Renamed(nnx.Module):
        def __init__(self):
            self.head = nnx.Linear(3, 3, param_dtype=float, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.head(x)

    report = compare(affine(), Renamed(), XS, steps=1, carry=True)
    assert report.ok, str(report)
    assert "arrays matched by `align`, proved" in report.notes


def test_a_file_holds_what_was_found(tmp_path):
    report = compare_pair(eps=1e-6)
    report.save(tmp_path / "r.json")
    report.save(tmp_path / "r.html")
    (found,) = json.loads((tmp_path / "r.json").read_text())["reports"]
    assert found["spec"] is None and found["models"] == ["Left", "Right"]
    location = found["first_divergence"]["location"]
    assert location["hint"] == "eps 1e-05 against 1e-06"
    page = (tmp_path / "r.html").read_text()
    assert "Left ~ Right" in page and location["hint"] in page
    assert "random projection" in page and "None" not in page


def test_outputs_of_another_number_are_refused():
    def two(model, xs, *, training, key):
        return (model(xs), xs), None

    with pytest.raises(ValueError, match="outputs: got 1 arrays on the left"):
        compare(affine(), ported(), XS, right_call=two)


def test_a_call_that_fails_is_explained():
    with pytest.raises(TypeError, match="left model: got .* in inference"):
        compare(affine(), ported(), XS[:, :2])


def noisy(model, xs, *, training, key):
    model = jax.vmap(model) if isinstance(model, Affine) else model
    return model(xs) + jr.normal(jr.key(0), (4, 3)), None


def test_random_inference_of_one_side_is_found():
    report = compare(affine(), ported(), XS, right_call=noisy, steps=1)
    found = report.first_divergence
    assert found is not None and found.quantity == "forward"
    assert found.hint.startswith("only the right draws random numbers in inf")
    assert found.lines[1].endswith("noisy"), str(report)
    assert "flax draws random numbers in inference mode" in str(report)


def test_random_inference_of_both_sides_is_refused():
    with pytest.raises(ValueError, match="got random numbers in inference"):
        compare(affine(), ported(), XS, left_call=noisy, right_call=noisy)


def test_a_loss_by_name_needs_targets():
    with pytest.raises(ValueError, match="ys: got None and the loss 'mse'"):
        compare(affine(), ported(), XS, loss="mse")


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="steps: got 0, expected 1 or more"):
        compare(affine(), ported(), XS, steps=0)


def test_trainers_of_models_of_the_user():
    left, right = (
        build(model=model, loss="mse", optimizer=optax.sgd(0.1))
        for model in (affine(), ported())
    )
    report = compare(left, right, XS, XS, steps=1)
    assert report.ok, str(report)
    assert "loss: mse" in report.notes


def test_a_trainer_and_a_model_are_refused():
    trainer = build("deep_mlp", backend="flax", depth=1, size=3)
    with pytest.raises(TypeError, match="compare: got a Trainer and a Other"):
        compare(trainer, ported(), XS)
    with pytest.raises(ValueError, match="two trainers: got carry, expected"):
        compare(trainer, trainer, XS, XS, carry=True)


def test_trainers_of_a_spec_and_of_a_model_are_refused():
    left = build("deep_mlp", backend="flax", depth=1, size=3, dtype="float64")
    with pytest.raises(ValueError, match="got one of the spec 'deep_mlp'"):
        right = build(model=ported(), loss="mse", optimizer=optax.sgd(0.1))
        compare(left, right, XS, XS)


def test_a_counter_that_was_made_without_x64_is_compared_in_float64():
    """Equinox's BatchNorm counts in an integer of the default width."""
    with jax.enable_x64(False):
        make = eqx.nn.make_with_state(eqx.nn.BatchNorm)
        left, right = (make(2, "batch", mode="batch") for _ in range(2))
        xs = np.random.default_rng(0).normal(size=(3, 2))
        report = compare(left, right, xs.astype(np.float32), steps=1)
    assert report.ok
    assert {row.dtype for row in report.rows} == {"float32", "float64"}
