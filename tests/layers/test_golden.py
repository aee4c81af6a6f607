"""Every layer agrees with stored vectors that were computed in NumPy."""

import functools
import subprocess
import sys
from typing import Any

import jax
import jax.random as jr
import numpy as np
import pytest

from common.comparison import layer_judge as judge
from common.layers.table import LAYERS
from tests.conftest import exhaustive_but
from tests.layers.golden.case import FOLDER, Case, complete, draw, load, save
from tests.layers.golden.check import check, compare

STORED = sorted(path.stem for path in FOLDER.glob("*.json"))
BACKENDS = ("reference", "equinox", "flax")
KEY = np.asarray(jr.key_data(jr.key(0)))


@pytest.fixture(scope="module")
def name(request):
    """The name of a row; drops what was compiled for it in the end."""
    yield request.param
    judge.clear_caches()


stored = pytest.mark.parametrize("name", STORED, indirect=True, scope="module")


def row_of(name, case):
    """Returns the row of a case, with tuples in place of JSON's lists."""
    fields = {key: hashable(x) for key, x in case["fields"].items()}
    return LAYERS[name](**fields)


def hashable(x: Any) -> Any:
    return tuple(map(hashable, x)) if isinstance(x, list) else x


def results(layer, backend, case):
    """Runs the calls of a case on a layer, one after the other."""
    params, buffers = case["params"], case["buffers"]
    for call in case["calls"]:
        training, inputs = call["training"], call["inputs"]
        forward = functools.partial(
            layer.forward, key=jr.key(0), training=training
        )
        outputs, _ = jax.eval_shape(forward, params, buffers, *inputs)
        tree = jax.tree.structure(outputs)
        weights = jax.tree.unflatten(tree, call["weights"])
        run = judge.compiled(layer, backend, "float64", training, True)
        got = jax.device_get(run(params, buffers, inputs, weights, KEY))
        buffers = got["buffers"]
        yield {**got, "outputs": jax.tree.leaves(got["output"])}


def mismatches(name, backend, stored):
    """Describes every array of a layer that differs from the stored one."""
    for case in stored:
        layer = row_of(name, case)
        calls = zip(results(layer, backend, case), case["calls"], strict=True)
        for i, (got, expected) in enumerate(calls):
            where = f"{backend} {layer!r} call {i}"
            yield from compare(got, expected, where, layer.zero_gradient)


def agreeing_cells():
    """Returns the name and backend of each check, and the marks.

    The layer matrix compares both libraries with the definitions, so most of
    the comparisons of a library with the golden vectors are exhaustive.
    """
    cells = [(name, backend) for name in STORED for backend in BACKENDS]
    definitions = [cell for cell in cells if cell[1] == "reference"]
    return exhaustive_but(cells, *definitions)


@pytest.mark.parametrize("cell", agreeing_cells(), ids="-".join)
def test_a_layer_agrees_with_the_golden_vectors(cell):
    name, backend = cell
    found = list(mismatches(name, backend, load(name)))
    assert not found, "\n".join(found)


@stored
def test_the_golden_vectors_can_be_recomputed(name):
    found = check(name, load(name))
    assert not found, "\n".join(found)


# The random numbers of JAX cannot be recomputed in NumPy.
@pytest.mark.parametrize(
    "layer", [name for name, row in LAYERS.items() if not row().random]
)
def test_a_row_has_golden_vectors(layer):
    assert layer in STORED, (
        f"golden vectors of {layer!r}: got no file, expected "
        f"tests/layers/golden/{layer}.json. Define the row in NumPy and run "
        f"`python -m tests.layers.golden {layer}`."
    )


@stored
def test_golden_vectors_cover_every_variable(name):
    for case in load(name):
        variables = row_of(name, case).variables()
        shapes = {leaf: v.shape for leaf, v in variables.items()}
        arrays = case["params"] | case["buffers"]
        assert {leaf: x.shape for leaf, x in arrays.items()} == shapes


def test_the_golden_definitions_import_numpy_only():
    code = (
        "import sys, tests.layers.golden.cases;"
        "print({'jax', 'torch', 'scipy', 'common'} & sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=FOLDER.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "set()"


# --- the tests detect changes -----------------------------------------


@pytest.mark.parametrize("quantity", ["outputs", "gradients", "buffers"])
def test_one_changed_number_is_detected(quantity):
    stored = load("batch_norm")[:1]
    arrays = stored[0]["calls"][1][quantity]
    x = arrays[0] if quantity == "outputs" else [*arrays.values()][-1]
    x.flat[-1] += 1e-10 * np.abs(x).max()
    whole = [*stored, *load("batch_norm")[1:]]
    for found in (
        list(mismatches("batch_norm", "reference", stored)),
        check("batch_norm", whole),
    ):
        assert len(found) == 1
        assert f"call 1, {quantity}" in found[0]


def test_a_changed_input_is_detected():
    stored = load("linear")
    stored[0]["calls"][0]["inputs"][0].flat[0] += 1e-6
    assert check("linear", stored)
    assert list(mismatches("linear", "reference", stored))


def test_a_missing_case_is_detected():
    assert check("linear", load("linear")[1:])


def test_the_complex_step_gives_the_derivative():
    """The derivative of a sine is the cosine."""
    case = Case(
        layer="sine",
        fields={},
        define=lambda x, weight: np.sin(x) * weight,
        inputs=((3,),),
        params={"weight": (3,)},
    )
    data = complete(case, draw(case, 0))
    (call,) = data["calls"]
    (x,), (w,) = call["inputs"], call["weights"]
    weight = data["params"]["weight"]
    expected = {
        "weight": np.sum(w * np.sin(x), axis=0),
        "input 0": w * np.cos(x) * weight,
    }
    assert not list(compare(call, {**call, "gradients": expected}, "sine"))


def test_a_golden_file_stores_every_bit(tmp_path, monkeypatch):
    values = np.array([0.1, 1 / 3, 1e-300, -0.0, 2.0**60])
    call = {name: [values] for name in ("inputs", "weights", "outputs")}
    call |= {name: {"x": values} for name in ("gradients", "buffers")}
    stored = {"params": {"x": values}, "buffers": {}, "calls": [call]}
    monkeypatch.setattr("tests.layers.golden.case.FOLDER", tmp_path)
    save("layer", [stored])
    (again,) = load("layer")
    assert again["params"]["x"].tobytes() == values.tobytes()
    assert again["calls"][0]["inputs"][0].tobytes() == values.tobytes()
