"""The models of the two libraries: the layers that a reader sees in them."""

import ast
import inspect

import equinox as eqx
import pytest
from flax import nnx

import impl_equinox.layers
import impl_flax.layers
from common import layers
from impl_equinox.models import stateful_mlp

NORM_CLASSES = {
    ("equinox", "ema"): eqx.nn.BatchNorm,
    ("equinox", "batch"): eqx.nn.BatchNorm,
    ("equinox", "standard"): impl_equinox.layers.BatchNorm,
    ("equinox", "torch"): impl_equinox.layers.BatchNorm,
    ("flax", "ema"): impl_flax.layers.BatchNorm,
    ("flax", "batch"): impl_flax.layers.BatchNorm,
    ("flax", "standard"): nnx.BatchNorm,
    ("flax", "torch"): impl_flax.layers.BatchNorm,
}


def norms(backend, native):
    """Returns the batch norms of a native model."""
    if backend == "flax":
        modules = [module for _, module in nnx.iter_modules(native.module)]
    else:
        modules = inner_modules(native.model)
    classes = tuple(set(NORM_CLASSES.values()))
    return [module for module in modules if isinstance(module, classes)]


def inner_modules(module):
    """Returns the Equinox modules in a module, itself included."""
    found = [module]
    for value in vars(module).values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, eqx.Module):
                found += inner_modules(item)
    return found


@pytest.mark.parametrize(("backend", "batch_norm"), NORM_CLASSES)
def test_model_has_the_norms_of_the_dialect(model, backend, batch_norm, make):
    trainer = make(model, backend, batch_norm=batch_norm)
    found = norms(backend, trainer.native)
    names = trainer.spec.variables()
    assert len(found) == sum("running_mean" in name for name in names)
    for norm in found:
        assert type(norm) is NORM_CLASSES[backend, batch_norm]
        hyper_parameters = vars(norm)
        assert hyper_parameters["momentum"] == trainer.spec.momentum
        eps = {"equinox": "eps", "flax": "epsilon"}[backend]
        assert hyper_parameters[eps] == trainer.spec.eps


def test_every_dialect_is_covered():
    dialects = {dialect for _, dialect in NORM_CLASSES}
    assert dialects == set(layers.BATCH_NORM_DIALECTS)


def stock_batch_norms(source: str) -> int:
    """Counts the calls of Equinox's BatchNorm that name the batch axis."""
    return sum(
        ast.unparse(node.func) == "eqx.nn.BatchNorm"
        and "input_size" in {keyword.arg for keyword in node.keywords}
        and any(
            keyword.arg == "axis_name"
            and ast.unparse(keyword.value) == "'batch'"
            for keyword in node.keywords
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
    )


def test_source_shows_the_batch_norms_of_the_example():
    """The matching axis name is the point of Equinox's example."""
    assert stock_batch_norms(inspect.getsource(stateful_mlp)) == 2


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("eqx.nn.BatchNorm(input_size=3, axis_name='batch')", 1),
        ("eqx.nn.BatchNorm(3, axis_name='batch')", 0),
        ("eqx.nn.BatchNorm(input_size=3, axis_name='examples')", 0),
        ("layers.batch_norm(3, 'ema', momentum=0.9, eps=1e-5)", 0),
    ],
)
def test_hidden_batch_norm_is_found(source, count):
    assert stock_batch_norms(source) == count
