"""The recipes: both libraries get the same results, in short, separate files.

The weights of both start from the same draws, so the results must agree like
those of any other training in float64.
"""

import ast
import functools
import importlib
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from jax.errors import KeyReuseError

from common.agreement import assert_close
from tests.conftest import one_in

ROOT = pathlib.Path(__file__).parents[2]
LIBRARIES = ("equinox", "flax")
MAX_LINES = 60


def recipes(library: str) -> list[str]:
    """Returns the names of a library's recipes.

    The notebook's scripts have tests of their own.
    """
    folder = ROOT / f"impl_{library}" / "recipes"
    names = {path.stem for path in folder.glob("[!_]*.py")}
    return sorted(names - {"stateful_operations"})


def source_of(library: str, name: str) -> str:
    return (ROOT / f"impl_{library}" / "recipes" / f"{name}.py").read_text()


each_recipe = pytest.mark.parametrize("name", recipes("flax"))
each_library = pytest.mark.parametrize("library", LIBRARIES)


def test_both_libraries_have_the_same_recipes():
    assert recipes("equinox") == recipes("flax") != []


# --- the results ------------------------------------------------------------


@functools.cache
def results(library: str, name: str) -> dict[str, np.ndarray]:
    """Returns what a recipe returns, which must not use a key twice."""
    recipe = importlib.import_module(f"impl_{library}.recipes.{name}")
    with jax.debug_key_reuse(True):
        return as_numpy(recipe.run(jax.random.key(0)))


def as_numpy(arrays) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


# The narrowest dtype that a recipe computes in, where this is not float64.
PRECISIONS = {"mixed_precision": "bfloat16"}


def assert_agree(
    actual: dict, expected: dict, precision: str = "float64"
) -> None:
    """Asserts that two recipes return the same arrays by name."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert array.size, name
        assert_close(
            actual[name],
            array,
            dtype=precision,
            quantity="trajectory",
            what=name,
        )


@pytest.mark.parametrize("name", one_in(2, recipes("flax")))
def test_both_libraries_get_the_same_results(name):
    precision = PRECISIONS.get(name, "float64")
    assert_agree(results("flax", name), results("equinox", name), precision)


@pytest.mark.parametrize(
    ("library", "name", "right", "wrong"),
    [
        # A stale state: the statistics of the model stay as they were.
        ("equinox", "train_and_eval", "(loss, state),", "(loss, _),"),
        # `jax.jit` drops what a training call changes.
        ("flax", "train_and_eval", "grad = nnx.jit", "grad = jax.jit"),
        ("flax", "ensemble", "optimizer.update(model, grads)", "pass"),
    ],
)
def test_a_fault_in_a_recipe_is_found(library, name, right, wrong):
    source = source_of(library, name)
    assert source.count(right) == 1
    recipe = types.ModuleType(f"impl_{library}.recipes.{name}")
    exec(source.replace(right, wrong), vars(recipe))
    (other,) = set(LIBRARIES) - {library}
    found = as_numpy(recipe.run(jax.random.key(0)))
    with pytest.raises(AssertionError, match="with an error of"):
        assert_agree(found, results(other, name))


def test_a_key_that_is_used_twice_is_found():
    right = "weight = jr.normal(weight_key, (3, 1))"
    source = source_of("equinox", "jitted_step")
    assert source.count(right) == 1
    wrong = source.replace(right, right.replace("weight_key", "layer_key"))
    recipe = types.ModuleType("impl_equinox.recipes.jitted_step")
    exec(wrong, vars(recipe))
    with jax.debug_key_reuse(True), pytest.raises(KeyReuseError):
        recipe.run(jax.random.key(0))


def test_missing_and_different_arrays_are_found():
    expected = {"a": np.ones(2), "n": np.arange(3)}
    assert_agree(dict(expected), expected)
    for actual in (
        {"a": np.ones(2)},
        expected | {"a": np.ones(2, np.float32)},
        expected | {"a": np.ones(3)},
        expected | {"n": np.arange(3) + 1},
    ):
        with pytest.raises(AssertionError):
            assert_agree(actual, expected)


# --- what single recipes promise --------------------------------------------


@each_library
def test_a_restored_run_continues_like_the_saved_one(library):
    saved, restored = results(library, "save_and_restore")["losses"]
    assert_close(restored, saved, dtype="float64", quantity="state")
    assert len(set(saved)) == len(saved)


@each_library
def test_the_silent_loss_shows_only_in_the_state(library):
    found = results(library, "jitted_step")
    right, wrong = found["loss"]
    assert_close(wrong, right, dtype="float64", quantity="trajectory")
    assert found["lost"].tolist() == [False, True]
    assert not found["mean"][1].any()


@each_library
def test_members_of_the_ensemble_differ(library):
    for array in results(library, "ensemble").values():
        members = array if len(array) == 4 else array.T
        assert len(np.unique(members, axis=0)) == 4


EIGHT_DEVICES = """
import sys
import jax
import numpy as np
from impl_equinox.recipes import data_parallel as equinox
from impl_equinox.recipes import sharded_parameters as equinox_parts
from impl_flax.recipes import data_parallel as flax
from impl_flax.recipes import sharded_parameters as flax_parts

assert jax.device_count() == 8
for name, recipe in (
    ("equinox-data_parallel", equinox),
    ("flax-data_parallel", flax),
    ("equinox-sharded_parameters", equinox_parts),
    ("flax-sharded_parameters", flax_parts),
):
    found = recipe.run(jax.random.key(0))
    parts = not found["weight"].is_fully_replicated
    assert parts == name.endswith("sharded_parameters")
    np.savez(f"{sys.argv[1]}/{name}.npz", **found)
"""


def test_eight_devices_train_like_one(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_force_host_platform_device_count=8"
    options = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | options | {"XLA_FLAGS": flags},
        check=True,
    )
    for path in tmp_path.iterdir():
        with np.load(path) as found:
            assert_agree(dict(found), results(*path.stem.split("-")))
    assert len(list(tmp_path.iterdir())) == 4


# --- the files --------------------------------------------------------------


def too_long(source: str) -> bool:
    return len(source.splitlines()) > MAX_LINES


@each_library
@each_recipe
def test_a_recipe_is_short(name, library):
    assert not too_long(source_of(library, name))


def test_a_long_recipe_is_found():
    assert too_long("x = 1\n" * (MAX_LINES + 1))
    assert not too_long("x = 1\n" * MAX_LINES)


# What a recipe may import from this project, and why its library is not
# enough.
PROJECT_IMPORTS = {
    # `nnx.SpectralNorm` overwrites the kernel that it wraps.
    ("flax", "gan_spectral_norm"): {"impl_flax.layers"},
    # `port` and `assert_equivalent` are the subject.
    ("equinox", "move_a_model"): {"common"},
    ("flax", "move_a_model"): {"common"},
}


def foreign_imports(library: str, source: str) -> set[str]:
    """Returns the imports of a recipe that its readers may not have."""
    known = {library, "jax", "numpy", "optax", *sys.stdlib_module_names}
    known |= {"orbax"} if library == "flax" else set()
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("." * node.level + (node.module or ""))
    return {name for name in modules if name.split(".")[0] not in known}


@each_library
@each_recipe
def test_a_recipe_stands_alone(name, library):
    allowed = PROJECT_IMPORTS.get((library, name), set())
    assert foreign_imports(library, source_of(library, name)) == allowed


@pytest.mark.parametrize(
    ("library", "source", "found"),
    [
        ("equinox", "import pathlib\nimport equinox as eqx", set()),
        ("equinox", "from flax import nnx", {"flax"}),
        ("equinox", "import orbax.checkpoint", {"orbax.checkpoint"}),
        ("flax", "import orbax.checkpoint as ocp", set()),
        ("flax", "def f():\n    from common import build", {"common"}),
        ("flax", "from impl_flax.layers import X", {"impl_flax.layers"}),
        ("flax", "from . import train_and_eval", {"."}),
    ],
)
def test_a_foreign_import_is_found(library, source, found):
    assert foreign_imports(library, source) == found


# --- the pages --------------------------------------------------------------


@each_recipe
def test_a_recipe_has_a_page_that_the_index_lists(name):
    text = (ROOT / "docs" / "recipes" / f"{name}.md").read_text()
    for library in LIBRARIES:
        path = f"../../impl_{library}/recipes/{name}.py"
        assert f"```{{literalinclude}} {path}\n" in text
    assert "\n## What differs\n" in text
    index = (ROOT / "docs" / "recipes" / "index.md").read_text()
    assert f"({name}.md) |\n" in index


def test_every_page_has_a_recipe():
    pages = {p.stem for p in (ROOT / "docs" / "recipes").glob("*.md")}
    assert pages == {*recipes("flax"), "index"}
