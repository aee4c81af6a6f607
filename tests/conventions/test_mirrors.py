"""The two impls mirror each other, and their models mirror the specs."""

import ast
import importlib
import inspect
import re

import pytest

from common.models import SPECS
from common.registry import backends
from tests.conventions.sources import IMPLS, ROOT


def modules(impl: str) -> set[str]:
    """Returns the files of an impl, without the layers that only it needs."""
    root = ROOT / impl
    names = {p.relative_to(root).as_posix() for p in root.rglob("*.py")}
    return {name for name in names if not name.startswith("layers/")}


def public_classes(source: str) -> list[str]:
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def public_methods(cls: type) -> set[str]:
    return {
        name
        for name, _ in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_impls_have_the_same_files():
    assert modules("impl_equinox") == modules("impl_flax")


# The cells of both files run in one notebook, so no name may be the same.
NOTEBOOK = "recipes/stateful_operations.py"


@pytest.mark.parametrize(
    "name", sorted(modules("impl_equinox") & modules("impl_flax"))
)
def test_both_impls_have_the_same_classes(name):
    first, second = (
        public_classes((ROOT / impl / name).read_text()) for impl in IMPLS
    )
    if name == NOTEBOOK:
        assert first and second and not set(first) & set(second)
    else:
        assert first == second


def test_both_layouts_have_the_same_methods():
    first, second = (
        public_methods(importlib.import_module(f"{impl}.canonical").Layouts)
        for impl in IMPLS
    )
    assert first == second
    assert {"read", "write", "to_names", "to_native"} <= first


def test_public_classes_and_methods_are_found():
    class Example:
        def shown(self): ...
        def _hidden(self): ...

    assert public_classes("class A: ...\nclass _B: ...") == ["A"]
    assert public_methods(Example) == {"shown"}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("model", SPECS)
def test_every_spec_has_a_model_of_its_name(model, impl):
    path = ROOT / impl / "models" / f"{model}.py"
    assert path.is_file()
    module = importlib.import_module(f"{impl}.models.{model}")
    assert inspect.isclass(getattr(module, SPECS[model].__name__))


@pytest.mark.parametrize("impl", IMPLS)
def test_every_model_has_a_spec(impl):
    models = {p.stem for p in (ROOT / impl / "models").glob("[!_]*.py")}
    assert models == SPECS.keys()


def hyper_parameters(function) -> dict[str, object]:
    """Returns the defaults of a model's hyper-parameters by name."""
    skipped = {"self", "key", "rngs", "dtype"}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in skipped}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("model", SPECS)
def test_a_model_takes_the_hyper_parameters_of_its_spec(model, impl):
    module = importlib.import_module(f"{impl}.models.{model}")
    model_class = getattr(module, SPECS[model].__name__)
    spec = SPECS[model]()
    assert hyper_parameters(model_class.__init__) == vars(spec)


def test_the_reference_uses_neither_library_nor_jax_nn():
    layers = (ROOT / "common" / "layers").glob("_*.py")
    for path in (*layers, ROOT / "common" / "training" / "reference.py"):
        source = path.read_text()
        assert not re.search(r"jax\.nn|from jax import .*\bnn\b", source)


def test_every_axis_of_the_matrix_is_as_long_as_its_table(request):
    """A backend or a spec that no test ran would otherwise go unnoticed."""
    manager = request.session._fixturemanager
    for fixture, table in (
        ("backend", backends()),
        ("model", tuple(SPECS)),
        ("dtype", ("float32", "float64")),
    ):
        (definition,) = manager.getfixturedefs(fixture, request.node)
        # Those that only `.ci/run` runs are wrapped in `pytest.param`.
        params = [getattr(p, "values", [p])[0] for p in definition.params]
        assert tuple(params) == table
        assert len(table) == len(set(table)) > 1
