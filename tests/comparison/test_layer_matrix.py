"""Layer x backend x dtype x {train, eval}, against the row's own function.

Hypothesis draws hyper-parameters and shapes; the data follow from the seed.
"""

import hypothesis
import numpy as np
import pytest

from common.comparison import layer_judge as judge
from common.differences import excused, known_differences
from common.layers.table import LAYERS
from common.registry import find_counterpart
from tests.layers.draws import DRAWS

pytestmark = pytest.mark.usefixtures("forgets")

LIBRARIES = ("equinox", "flax")
# In float64 the formula is on trial, for every example. The narrower dtypes
# are about rounding, for which a share of the examples will do.
SHARES = {"float64": 1, "float32": 4, "bfloat16": 4}

# The last decorator varies slowest: what is compiled of a row is shared by its
# libraries and dtypes, and then forgotten.
rows = pytest.mark.parametrize("name", LAYERS)
libraries = pytest.mark.parametrize("backend", LIBRARIES)


def check(layer, backend, findings, dtype):
    known = excused(layer, backend, dtype)
    problems = [
        str(it) for it in findings if not it.ok and it.quantity not in known
    ]
    assert not problems, "\n".join([f"{backend} {layer!r}", *problems])


def for_examples(name, share, function):
    """Calls a function with the rows whose fields Hypothesis draws."""
    profile = hypothesis.settings()

    # The row is made out here: type-checked code in a strategy uses `random`.
    def call(fields):
        function(LAYERS[name](**fields))

    run = hypothesis.given(fields=DRAWS[name])(call)
    examples = max(1, profile.max_examples // share)
    return hypothesis.settings(profile, max_examples=examples)(run)()


@pytest.mark.parametrize("dtype", judge.DTYPES)
@libraries
@rows
def test_layer_is_its_definition(name, backend, dtype):
    def check_one(layer):
        findings = judge.measure(layer, backend, dtype, quick=True)
        check(layer, backend, findings, dtype)

    for_examples(name, SHARES[dtype], check_one)


@libraries
@rows
def test_example_as_users_compile_it(name, backend):
    layer = LAYERS[name]()
    findings = judge.measure(layer, backend, "float32")
    check(layer, backend, findings, "float32")


@libraries
@rows
def test_second_derivatives(name, backend):
    layer = LAYERS[name]()
    findings = judge.curvature(layer, backend)
    check(layer, backend, findings, "float64")


@libraries
@rows
def test_arrays_come_back_bit_for_bit(name, backend):
    def check_one(layer):
        case = judge.draw(layer, 2, seed=0)
        counterpart = find_counterpart(backend, layer)
        native = counterpart.write(case.params, case.buffers)
        params, buffers = counterpart.read(native)
        for got, want in ((params, case.params), (buffers, case.buffers)):
            assert got.keys() == want.keys()
            for leaf in want:
                assert np.shape(got[leaf]) == want[leaf].shape
                assert np.array_equal(got[leaf], want[leaf]), leaf

    for_examples(name, 4, check_one)


def test_every_row_has_a_strategy():
    assert DRAWS.keys() == LAYERS.keys()


EXCUSES = [
    pytest.param(row, excuse, id=f"{row.name}-{excuse.layer}")
    for row in known_differences()
    for excuse in row.excuses
]


@pytest.mark.parametrize(("row", "excuse"), EXCUSES)
def test_an_excuse_is_needed(row, excuse):
    layer = LAYERS[excuse.layer](**excuse.options)
    for dtype in excuse.dtypes:
        findings = judge.measure(layer, row.backend, dtype, quick=True)
        differing = {it.quantity for it in findings if not it.ok}
        assert set(excuse.quantities) <= differing, dtype
