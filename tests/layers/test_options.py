"""Every option of every stock layer is compared with a definition.

The constructors and calls of the installed libraries are recorded while the
layers of the matrix, with their examples and the covering settings, and the
comparisons of single options are traced. Nothing is compiled for that.
"""

import inspect

import jax
import numpy as np
import pytest

from common.agreement import layer_tolerance, relative_error
from common.comparison.layer_calls import layer_groups, trace
from common.layers.recording import Use, parameters, recorded
from common.layers.table import LAYERS
from common.registry import find_options, find_public_layers
from tests.layers.draws.covering import COVERING
from tests.layers.options import COMPARISONS
from tests.layers.options.drawing import evaluate, shapes_of

LIBRARIES = ("equinox", "flax")

libraries = pytest.mark.parametrize("library", LIBRARIES)
# These take longest to compile.
SLOW = {
    "arguments_of_the_call_of_bidirectional",
    "cells_with_other_functions",
    "dropout_of_attention",
    "inference_with_state",
}
cases = pytest.mark.parametrize(
    "comparison",
    [
        pytest.param(
            one,
            id=f"{library}-{one.__name__}",
            marks=[pytest.mark.exhaustive] * (one.__name__ in SLOW),
        )
        for library, several in COMPARISONS.items()
        for one in several
    ],
)


# --- comparisons of single options ------------------------------------------


def assert_agrees(comparison):
    (first_gradients, first), (second_gradients, second) = evaluate(comparison)
    for quantity, got, want in (
        ("layer", first, second),
        ("layer gradients", first_gradients, second_gradients),
    ):
        terms = max(map(np.size, jax.tree.leaves(want)), default=1)
        bound = layer_tolerance("float64", quantity, terms)
        for x, expected in zip(
            jax.tree.leaves(got), jax.tree.leaves(want), strict=True
        ):
            assert relative_error(x, expected) <= bound, quantity


@cases
def test_an_option_agrees_with_its_definition(comparison):
    assert_agrees(comparison)


def test_a_comparison_that_differs_is_found():
    def outputs(draw):
        x = draw(3)
        return x, x * (1 + 1e-9)

    with pytest.raises(AssertionError, match="layer"):
        assert_agrees(outputs)

    def gradients(draw):
        x = draw(3)
        return x, jax.lax.stop_gradient(x)

    with pytest.raises(AssertionError, match="layer gradients"):
        assert_agrees(gradients)


# --- every option -----------------------------------------------------------


def options(library):
    """Returns the arguments that have a default, and their defaults."""
    found = {}
    for name, layer in find_public_layers(library).items():
        for method, prefix in (("__init__", ""), ("__call__", "__call__.")):
            for argument, parameter in parameters(layer, method).items():
                if parameter.default is not inspect.Parameter.empty:
                    found[f"{name}.{prefix}{argument}"] = parameter.default
    return found


def is_set(value, default):
    """Whether a value differs from the default; None may stand for False."""
    if default is None and value is False:
        return False
    return value is not default and repr(value) != repr(default)


def set_in(uses: list[Use], library):
    """Returns the options to which some use gives another value."""
    defaults = options(library)
    found = set()
    for use in uses:
        prefix = "__call__." if use.method == "__call__" else ""
        for argument, value in use.arguments.items():
            name = f"{use.layer}.{prefix}{argument}"
            if name in defaults and is_set(value, defaults[name]):
                found.add(name)
    return found


def reasons(library):
    """Returns the two tables of options that are not compared."""
    module = find_options(library)
    return module.NOT_COMPARED, module.NOT_SET


def problems(library, found):
    """Says what is wrong with the options set, and with the tables."""
    known = options(library)
    by_name, by_option = reasons(library)
    semantic = {
        name for name in known if name.rpartition(".")[2] not in by_name
    }
    names = {name.rpartition(".")[2] for name in known}
    return [
        *(
            f"{name}: no comparison sets it"
            for name in sorted(semantic - found - by_option.keys())
        ),
        *(
            f"{name}: a comparison sets it, so it needs no reason"
            for name in sorted(by_option.keys() & found)
        ),
        *(
            f"{name}: a reason, but no layer has this option"
            for name in sorted(by_option.keys() - semantic)
        ),
        *(
            f"{name}: a reason, but no layer has an argument of this name"
            for name in sorted(by_name.keys() - names)
        ),
    ]


@pytest.fixture(scope="module", params=LIBRARIES)
def recording(request):
    """A library, and the options that the matrix or a comparison sets."""
    library = request.param
    groups = layer_groups(library)
    stock = next(iter(groups))
    with recorded({stock: groups[stock]}) as uses:
        for name, row in LAYERS.items():
            for settings in ({}, *COVERING.get(name, ())):
                trace(row(**settings), library)
        for comparison in COMPARISONS[library]:
            shapes_of(comparison)
    return library, set_in(uses, library)


def test_every_option_is_compared_or_has_a_reason(recording):
    library, found = recording
    assert not problems(library, found)


def test_an_option_that_nothing_sets_is_found(recording):
    library, found = recording
    name = sorted(found)[0]
    assert problems(library, found - {name}) == [
        f"{name}: no comparison sets it"
    ]


def test_a_reason_that_is_not_needed_is_found(recording, monkeypatch):
    library, found = recording
    by_name, by_option = reasons(library)
    name = sorted(found)[0]
    monkeypatch.setitem(by_option, name, "it was too much work")
    monkeypatch.setitem(by_option, "Linear.gone", "a release removed it")
    monkeypatch.setitem(by_name, "gone", "a release removed it")
    assert [text.partition(":")[0] for text in problems(library, found)] == [
        name,
        "Linear.gone",
        "gone",
    ]


def test_false_is_not_another_value_than_none():
    assert not is_set(False, None) and is_set(True, None)
    assert is_set(False, True) and not is_set((1, 1), (1, 1))


@libraries
def test_there_are_many_options(library):
    """If a release adds options, the test above names them."""
    by_name, _ = reasons(library)
    names = [name.rpartition(".")[2] for name in options(library)]
    semantic = [name for name in names if name not in by_name]
    assert len(semantic) == {"equinox": 132, "flax": 161}[library]
