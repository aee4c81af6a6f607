"""Every layer, in both libraries and all dtypes, against its definition.

Hypothesis draws hyper-parameters and shapes; the data follow from the seed.
Every row is checked in float64, where an error in a formula shows, on its
example. A part of the rows is also checked for its rounding in
the other dtypes, for its second derivatives, and with XLA's optimization. The
tests marked `exhaustive` check the other rows as well, and run on many draws.
"""

import hypothesis
import numpy as np
import pytest

from common.comparison import layer_judge as judge
from common.differences import excused, known_differences
from common.layers.table import LAYERS
from common.registry import find_counterpart
from tests.conftest import exhaustive_but, many_draws, one_in
from tests.layers.draws import DRAWS
from tests.layers.draws.covering import COVERING

LIBRARIES = ("equinox", "flax")


@pytest.fixture(scope="module")
def row(request):
    """The name of a row.

    pytest groups the tests of a module-scoped parameter, so that all tests of
    a row share what they compile, and the programs are dropped after them.
    The programs of all rows together would take gigabytes.
    """
    yield request.param
    judge.clear_caches()


def some_rows(rows):
    return pytest.mark.parametrize("row", rows, indirect=True, scope="module")


rows = some_rows(LAYERS)
libraries = pytest.mark.parametrize("backend", LIBRARIES)
low_precision = pytest.mark.parametrize(
    "dtype", [name for name in judge.DTYPES if name != "float64"]
)


def assert_agrees(layer, backend, findings, dtype):
    """Asserts that all errors are small or due to a known difference."""
    known = excused(layer, backend, dtype)
    mismatches = [
        str(finding)
        for finding in findings
        if not finding.ok and finding.quantity not in known
    ]
    assert not mismatches, "\n".join([f"{backend} {layer!r}", *mismatches])


def for_draws(row, draws, function):
    """Calls a function with layers whose fields Hypothesis draws."""

    # The layer is made outside of the strategy, because the type checker uses
    # `random`, which Hypothesis would report.
    def call(fields):
        function(LAYERS[row](**fields))

    run = hypothesis.given(fields=DRAWS[row])(call)
    hypothesis.settings(hypothesis.settings(), max_examples=draws)(run)()


def measure_and_assert(layer, backend, dtype):
    findings = judge.measure(layer, backend, dtype, quick=True)
    assert_agrees(layer, backend, findings, dtype)


def assert_round_trip(layer, backend):
    """Asserts that arrays are written and read back bit for bit."""
    case = judge.draw(layer, 2, seed=0)
    counterpart = find_counterpart(backend, layer)
    native = counterpart.write(case.params, case.buffers)
    params, buffers = counterpart.read(native)
    for got, expected in ((params, case.params), (buffers, case.buffers)):
        assert got.keys() == expected.keys()
        for name in expected:
            assert np.shape(got[name]) == expected[name].shape
            assert np.array_equal(got[name], expected[name]), name


# --- each check at least once -----------------------------------------------


@libraries
@rows
def test_layer_agrees_with_its_definition(row, backend):
    measure_and_assert(LAYERS[row](), backend, "float64")


@low_precision
@libraries
@some_rows(one_in(8, LAYERS))
def test_layer_rounds_as_its_definition(row, backend, dtype):
    measure_and_assert(LAYERS[row](), backend, dtype)


# --- conditioning, and float16 ----------------------------------------------


SUBTRACTING = ("batch_norm", "layer_norm", "group_norm", "instance_norm")


@libraries
@some_rows(exhaustive_but(SUBTRACTING, "instance_norm"))
def test_layer_rounds_as_its_definition_at_a_large_mean(row, backend):
    """Beyond the bound at a mean of 0, but within |mean| / deviation of it."""
    layer = LAYERS[row]()
    options = {"mean": 1e4, "quick": True}
    findings = judge.measure(layer, backend, "float32", **options)
    assert_agrees(layer, backend, findings, "float32")
    offset = layer.offset(judge.draw(layer, 3, 0, 1e4).calls[0].inputs[0])
    assert offset > 5e3
    assert any(one.error > one.tolerance / offset for one in findings)


@libraries
@some_rows(exhaustive_but(LAYERS, "embedding_attend"))
def test_layer_rounds_as_its_definition_in_float16(row, backend):
    measure_and_assert(LAYERS[row](), backend, "float16")


# Nightly draws whose rounding errors the formula itself amplifies.
AMPLIFYING = {
    "mlp": {
        "in_size": "scalar",
        "out_size": "scalar",
        "width_size": 3,
        "depth": 3,
        "activation": "silu",
        "final_activation": "sigmoid",
        "use_final_bias": False,
    },
    "spectral_norm": {
        "in_features": 2,
        "kernel_size": (2,),
        "use_bias": False,
        "num_power_iterations": 2,
        "eps": 1.0,
    },
    "multihead_attention": {
        "q_len": 2,
        "kv_len": 2,
        "kv_size": 4,
        "output_size": 3,
    },
}


@pytest.mark.exhaustive
@libraries
@some_rows(AMPLIFYING)
def test_errors_that_a_formula_amplifies_are_accepted(row, backend):
    layer = LAYERS[row](**AMPLIFYING[row])
    measure_and_assert(layer, backend, "float32")


@pytest.mark.exhaustive  # with little optimization, it repeats those above
@libraries
@some_rows(
    pytest.param(row, marks=[pytest.mark.optimized] * (i % 4 == 0))
    for i, row in enumerate(LAYERS)
)
def test_optimized_layer_agrees_with_its_definition(row, backend):
    """The other tests pass compiler options for little optimization."""
    layer = LAYERS[row]()
    findings = judge.measure(layer, backend, "float32")
    assert_agrees(layer, backend, findings, "float32")


@libraries
@some_rows(one_in(8, LAYERS))
def test_second_derivatives_agree(row, backend):
    layer = LAYERS[row]()
    findings = judge.curvature(layer, backend)
    assert_agrees(layer, backend, findings, "float64")


@libraries
@rows
def test_arrays_make_a_round_trip(row, backend):
    assert_round_trip(LAYERS[row](), backend)


# --- many draws -------------------------------------------------------------


@pytest.mark.exhaustive
@libraries
@rows
def test_many_layers_agree_with_their_definition(row, backend):
    def check(layer):
        measure_and_assert(layer, backend, "float64")

    if row in COVERING and hypothesis.settings().derandomize:
        # Draws that are always the same ones might as well be chosen.
        for fields in COVERING[row]:
            check(LAYERS[row](**fields))
    else:
        for_draws(row, many_draws(1 / 10), check)


@pytest.mark.exhaustive
@libraries
@rows
def test_arrays_of_many_layers_make_a_round_trip(row, backend):
    draws = many_draws(1 / 20)
    for_draws(row, draws, lambda layer: assert_round_trip(layer, backend))


# --- the table itself -------------------------------------------------------


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
        differing = {
            finding.quantity for finding in findings if not finding.ok
        }
        assert set(excuse.quantities) <= differing, dtype
