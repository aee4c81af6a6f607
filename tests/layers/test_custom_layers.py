"""The custom layers of both impls: documentation, fields, absent arrays."""

import doctest
import inspect
import textwrap
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

import impl_equinox.layers
import impl_flax.layers
from tests.conftest import one_in

PACKAGES = (impl_equinox.layers, impl_flax.layers)
LAYERS = {
    f"{package.__name__.split('.')[0]}-{name}": value
    for package in PACKAGES
    for name, value in vars(package).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}

each_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


# --- docstrings -------------------------------------------------------------


def examples(layer: Any) -> doctest.DocTest:
    """Returns the runnable examples in the docstring of a layer."""
    return doctest.DocTestParser().get_doctest(
        inspect.getdoc(layer) or "", {}, layer.__name__, None, None
    )


def missing_parts(layer: Any) -> list[str]:
    """Returns what the docstring of a layer should have and does not."""
    missing = []
    # These select a layer or an option of one, and have no formula.
    selects = ("batch_norm", "keep_dtypes")
    is_layer = inspect.isclass(layer) or layer.__name__ not in selects
    if is_layer and ".. math::" not in (inspect.getdoc(layer) or ""):
        missing.append("formula")
    if not any(example.want for example in examples(layer).examples):
        missing.append("example")
    return missing


def failures_of_examples(layer: Any) -> list[str]:
    """Runs the examples of a layer, and returns the reports of failures."""
    reports: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(examples(layer), out=reports.append)
    return reports


def test_both_packages_have_layers():
    found = {name.split("-")[0] for name in LAYERS}
    assert found == {"impl_equinox", "impl_flax"}
    assert len(LAYERS) > 20


@each_layer
def test_docstring_has_a_formula_and_an_example(layer):
    assert missing_parts(layer) == []


@pytest.mark.parametrize("name", one_in(6, LAYERS))
def test_example_runs(name):
    layer = LAYERS[name]
    reports = failures_of_examples(layer)
    assert not reports, "".join(reports)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_that_it_holds_what_the_library_lacks(package):
    assert "only what" in package.__doc__ and "lacks" in package.__doc__


def documented(docstring):
    """Returns a layer class with a docstring."""
    return type("Layer", (), {"__doc__": textwrap.dedent(docstring)})


COMPLETE = """A layer.

    .. math::
        y = 2 x

    Example:

        >>> 2 * 3
        6
    """


@pytest.mark.parametrize(
    ("docstring", "missing"),
    [
        (COMPLETE, []),
        (COMPLETE.replace(".. math::", ""), ["formula"]),
        (COMPLETE.replace(">>> ", ""), ["example"]),
        (COMPLETE.replace("2 * 3\n        6", "x = 2 * 3"), ["example"]),
        ("", ["formula", "example"]),
    ],
    ids=["complete", "no_formula", "no_example", "no_output", "empty"],
)
def test_missing_part_of_a_docstring_is_found(docstring, missing):
    assert missing_parts(documented(docstring)) == missing


@pytest.mark.parametrize(
    ("example", "expected"),
    [("2 * 3", ""), ("2 * 4", "Expected:\n    6\nGot:\n    8")],
    ids=["right", "wrong"],
)
def test_wrong_example_fails(example, expected):
    layer = documented(COMPLETE.replace("2 * 3", example))
    reports = failures_of_examples(layer)
    assert bool(reports) == bool(expected)
    assert expected in "".join(reports)


# --- Equinox: fields --------------------------------------------------------


STOCK_COUNTERPARTS = [
    (impl_equinox.layers.BatchNorm, eqx.nn.BatchNorm),
    (impl_equinox.layers.Dropout, eqx.nn.Dropout),
    (impl_equinox.layers.GroupedQueryAttention, eqx.nn.MultiheadAttention),
    (impl_equinox.layers.LayerNorm, eqx.nn.LayerNorm),
    (impl_equinox.layers.MaskedConv, eqx.nn.Conv),
    (
        impl_equinox.layers.RotaryPositionalEmbedding,
        eqx.nn.RotaryPositionalEmbedding,
    ),
    (impl_equinox.layers.SimpleCell, eqx.nn.GRUCell),
]


def fields_of_another_kind(layer: type, stock: type) -> list[str]:
    """Returns the fields that are static in only one of two layers."""

    def is_static(cls):
        return {
            name: field.metadata.get("static", False)
            for name, field in getattr(cls, "__dataclass_fields__").items()  # noqa: B009
        }

    ours, theirs = is_static(layer), is_static(stock)
    return [
        name
        for name in ours.keys() & theirs.keys()
        if ours[name] != theirs[name]
    ]


@pytest.mark.parametrize(("layer", "stock"), STOCK_COUNTERPARTS)
def test_fields_are_static_where_those_of_equinox_are(layer, stock):
    assert fields_of_another_kind(layer, stock) == []


def test_static_field_of_another_kind_is_found():
    class Dropout(eqx.Module):
        p: float = eqx.field(static=True)
        inference: bool

    found = fields_of_another_kind(Dropout, eqx.nn.Dropout)
    assert found == ["p"]


def drop(layer, key):
    """Applies an Equinox dropout to a batch of ones."""
    return jax.vmap(lambda x: layer(x, key=key), axis_name="batch")(
        jnp.ones((4, 6))
    )


def test_dropout_probability_can_be_changed_with_tree_at():
    key = jr.key(0)
    layer = impl_equinox.layers.Dropout(0.25, axis_name="batch")
    changed = eqx.tree_at(lambda layer: layer.p, layer, 0.5)
    expected = impl_equinox.layers.Dropout(0.5, axis_name="batch")
    assert np.array_equal(drop(changed, key), drop(expected, key))
    assert not np.array_equal(drop(layer, key), drop(expected, key))


def test_dropout_probability_can_be_an_array():
    key = jr.key(0)
    layer = impl_equinox.layers.Dropout(0.25, axis_name="batch")
    traced = eqx.tree_at(lambda layer: layer.p, layer, jnp.array(0.25))
    assert np.array_equal(eqx.filter_jit(drop)(traced, key), drop(layer, key))
    gradient = eqx.filter_grad(lambda layer: drop(layer, key).sum())(traced)
    assert gradient.p == 0


def test_axis_name_can_be_changed_with_tree_at():
    norm, state = eqx.nn.make_with_state(impl_equinox.layers.BatchNorm)(
        3, axis_name="batch"
    )
    renamed = eqx.tree_at(lambda norm: norm.axis_name, norm, "examples")
    ys, _ = jax.vmap(
        renamed, axis_name="examples", in_axes=(0, None), out_axes=(0, None)
    )(jnp.ones((4, 3)), state)
    assert np.array_equal(ys, np.zeros((4, 3)))


def masked_conv(mask):
    return impl_equinox.layers.MaskedConv(
        1, 2, 2, kernel_size=3, mask=mask, key=jr.key(0)
    )


def test_mask_is_an_array_that_is_not_trained():
    conv = masked_conv([1, 1, 0])
    assert conv.mask is not None
    assert eqx.is_array(conv.mask) and not eqx.is_inexact_array(conv.mask)
    assert any(leaf is conv.mask for leaf in jax.tree.leaves(conv))
    gradient = eqx.filter_grad(lambda conv: conv(jnp.ones((2, 5))).sum())(conv)
    assert gradient.mask is None
    assert np.array_equal(gradient.weight != 0, conv.mask)


def test_mask_can_be_changed_with_tree_at():
    conv, other = masked_conv([1, 1, 0]), masked_conv([0, 1, 1])
    changed = eqx.tree_at(lambda conv: conv.mask, conv, other.mask)
    x = jr.normal(jr.key(1), (2, 5))
    assert np.array_equal(changed(x), other(x))
    assert not np.array_equal(conv(x), other(x))
    # The mask is traced, so another mask does not compile again.
    compiled = eqx.filter_jit(lambda conv, x: conv(x))
    assert np.array_equal(compiled(changed, x), compiled(other, x))
    assert jax.tree.structure(conv) == jax.tree.structure(other)


# --- Flax: absent arrays, masks of dropout ----------------------------------


def absent_data(module: nnx.Module) -> set[str]:
    """Returns the attributes that are `nnx.data(None)`, by path.

    An attribute that is a plain `None` is static, and not among the leaves.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda leaf: leaf is None
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in leaves
        if leaf is None
    }


def flax_batch_norm(mode, **options):
    return impl_flax.layers.BatchNorm(
        3, mode=mode, rngs=nnx.Rngs(0), **options
    )


ABSENT = {
    "ema": (lambda: flax_batch_norm("ema"), {"count"}),
    "batch": (lambda: flax_batch_norm("batch"), {"first_time"}),
    "torch": (lambda: flax_batch_norm("torch"), {"first_time", "count"}),
    "no_affine": (
        lambda: flax_batch_norm("ema", use_bias=False, use_scale=False),
        {"bias", "scale", "count"},
    ),
    "no_dropout": (
        lambda: impl_flax.layers.MultiheadAttention(
            2, 3, 3, 3, 3, 2, 2, rngs=nnx.Rngs(0)
        ),
        {"rngs"},
    ),
    "gru_without_bias": (
        lambda: impl_flax.layers.GRUCell(
            3, 4, use_bias=False, rngs=nnx.Rngs(0)
        ),
        {"bias_n", "dense_i.bias", "dense_h.bias"},
    ),
}


@pytest.mark.parametrize("case", ABSENT)
def test_absent_array_is_declared_as_data(case):
    create, expected = ABSENT[case]
    module = create()
    assert expected <= absent_data(module)
    for path in expected:
        parent: Any = module
        for name in path.split("."):
            parent = getattr(parent, name)
        assert parent is None


def test_plain_none_is_not_declared_as_data():
    class Layer(nnx.Module):
        def __init__(self):
            self.bias = None
            self.scale = nnx.data(None)

    assert absent_data(Layer()) == {"scale"}


def test_flax_dropout_samples_one_mask_per_example():
    key, x = jr.key(0), jnp.ones((4, 6))
    dropout = impl_flax.layers.Dropout(0.5)
    y = dropout(x, rngs=key)
    stock = eqx.nn.Dropout(0.5)
    expected = jax.vmap(lambda x, key: stock(x, key=key))(x, jr.split(key, 4))
    assert np.array_equal(y, expected)
    assert not np.array_equal(y, nnx.Dropout(0.5)(x, rngs=key))


def test_flax_dropout_takes_rngs_or_a_stream():
    x = jnp.ones((4, 6))
    dropout = impl_flax.layers.Dropout(0.5)
    expected = dropout(x, rngs=nnx.Rngs(dropout=0).dropout())
    assert np.array_equal(dropout(x, rngs=nnx.Rngs(dropout=0)), expected)
    assert np.array_equal(
        dropout(x, rngs=nnx.Rngs(dropout=0).dropout), expected
    )
    layer = impl_flax.layers.Dropout(0.5, rngs=nnx.Rngs(dropout=0))
    assert not np.array_equal(layer(x), layer(x))


def test_flax_dropout_returns_its_input_in_evaluation():
    x = jnp.ones((4, 6))
    dropout = impl_flax.layers.Dropout(0.5)
    dropout.eval()
    assert np.array_equal(dropout(x), x)
    assert np.array_equal(impl_flax.layers.Dropout(0.0)(x), x)


def test_flax_dropout_without_rngs():
    with pytest.raises(ValueError, match=r"^Dropout rngs: got None, expected"):
        impl_flax.layers.Dropout(0.5)(jnp.ones((4, 6)))
