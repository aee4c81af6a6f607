"""The rules of the code base that no tool checks, and a fault for each.

A rule is a function of source text that returns what it found wrong, so that
its own test can plant a violation and see it found.
"""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable

import pytest

import common
from common.models import SPECS
from common.registry import backends

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("common", "impl_equinox", "impl_flax")
IMPLS = ("impl_equinox", "impl_flax")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def label(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[pathlib.Path]:
    """All text files that git would commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    paths = (ROOT / name for name in listed)
    return [p for p in paths if p.is_file() and b"\0" not in p.read_bytes()]


sources = pytest.mark.parametrize("path", SOURCES, ids=label)


def test_there_is_something_to_check():
    assert {label(p).split("/")[0] for p in SOURCES} == set(PACKAGES)
    assert pathlib.Path(__file__) in TESTS


# --- imports ----------------------------------------------------------------

LIBRARIES = {"equinox": "impl_equinox", "flax": "impl_flax"}


def imported(source: str) -> set[str]:
    """The top-level packages that a source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def forbidden_imports(package: str, source: str) -> set[str]:
    """A library is imported by its own impl; impls are imported by none."""
    forbidden = {x for x, home in LIBRARIES.items() if home != package}
    forbidden |= {impl for impl in IMPLS if impl != package}
    return imported(source) & forbidden


@sources
def test_imports_go_one_way(path):
    package = label(path).split("/")[0]
    assert not forbidden_imports(package, path.read_text())


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("common", "import equinox as eqx", "equinox"),
        ("common", "from flax import nnx", "flax"),
        ("common", "import flax.nnx", "flax"),
        ("common", "def f():\n    import flax", "flax"),
        ("common", "if TYPE_CHECKING:\n    import equinox", "equinox"),
        ("common", "from impl_flax import state", "impl_flax"),
        ("common", "import impl_equinox.backend", "impl_equinox"),
        ("impl_equinox", "from flax import nnx", "flax"),
        ("impl_equinox", "from impl_flax.layers import X", "impl_flax"),
        ("impl_flax", "import equinox", "equinox"),
        ("impl_flax", "from impl_equinox import layers", "impl_equinox"),
    ],
)
def test_a_forbidden_import_is_found(package, source, found):
    assert forbidden_imports(package, source) == {found}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("impl_equinox", "import equinox\nfrom impl_equinox import state"),
        ("impl_flax", "from flax import nnx\nfrom common import data"),
        ("common", "from . import flax\nimport jax\nname = 'flax'"),
    ],
)
def test_other_imports_are_fine(package, source):
    assert forbidden_imports(package, source) == set()


def python(program: str) -> list[str]:
    """Runs a program in a process of its own; returns the lines it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.splitlines()


def test_importing_common_loads_no_library():
    (loaded,) = python(
        "import sys, common; print(sorted({'jax', 'equinox', 'flax', "
        "'impl_equinox', 'impl_flax'} & sys.modules.keys()))"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("backend", backends())
def test_a_backend_loads_no_library_but_its_own(backend):
    (loaded,) = python(
        f"import sys\nfrom common.registry import find_backend\n"
        f"find_backend({backend!r})\n"
        "print(*({'equinox', 'flax'} & sys.modules.keys()))"
    )
    assert loaded.split() == [backend] * (backend in LIBRARIES)


@pytest.mark.parametrize("first", ["build", "specs"])
def test_public_names_are_what_they_say(first):
    """Whichever is imported first: `specs` is a function and a package."""
    lines = python(
        f"from common import {first}\n"
        f"from common import {', '.join(common.__all__)}\n"
        f"print(backends())\nprint(specs())\n"
        "print(callable(build), callable(compare))"
    )
    assert lines == [
        repr(backends()),
        repr(tuple(SPECS)),
        "True True",
    ]


# --- the two impls mirror each other ----------------------------------------


def modules(impl: str) -> set[str]:
    """The file names of an impl, but for the bare package files."""
    root = ROOT / impl
    return {p.relative_to(root).as_posix() for p in root.rglob("*.py")}


def public_classes(source: str) -> list[str]:
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def test_both_impls_have_the_same_files():
    assert mirrored("impl_equinox") == mirrored("impl_flax")


def mirrored(impl: str) -> set[str]:
    """The files that both have: each has layers that only it lacks."""
    return {it for it in modules(impl) if not it.startswith("layers/")}


MIRRORED = sorted(mirrored("impl_equinox") & mirrored("impl_flax"))


@pytest.mark.parametrize("name", MIRRORED)
def test_both_impls_have_the_same_classes(name):
    first, second = (
        public_classes((ROOT / impl / name).read_text()) for impl in IMPLS
    )
    assert first == second


def test_public_classes_are_found():
    assert public_classes("class A: ...\nclass _B: ...\nclass C(A): ...") == [
        "A",
        "C",
    ]


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


def fields(function) -> dict[str, object]:
    """Names and defaults of a model's hyper-parameters."""
    skipped = {"self", "key", "rngs"}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in skipped}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("model", SPECS)
def test_a_model_takes_the_specs_hyper_parameters(model, impl):
    module = importlib.import_module(f"{impl}.models.{model}")
    model_class = getattr(module, SPECS[model].__name__)
    spec = SPECS[model]()
    assert fields(model_class.__init__) == vars(spec)


def test_the_reference_stands_on_neither_library_nor_jax_nn():
    layers = (ROOT / "common" / "layers").glob("_*.py")
    for path in (*layers, ROOT / "common" / "training" / "reference.py"):
        source = path.read_text()
        assert not re.search(r"jax\.nn|from jax import .*\bnn\b", source)


# --- docstrings -------------------------------------------------------------


def public(node: ast.AST) -> bool:
    return not getattr(node, "name", "_").startswith("_")


def undocumented(source: str) -> list[str]:
    """Public modules, classes, functions and methods with no docstring.

    Nested functions, and methods that a documented class inherits or that
    the library calls (`__call__`), have their say elsewhere.
    """
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else ["module"]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if not isinstance(node, (*functions, ast.ClassDef)):
            continue
        if public(node) and not ast.get_docstring(node):
            missing.append(node.name)
    return missing


# A `Native` is what its backend's docstring and its fields say.
NEEDS_NONE = {"Native"}


@sources
def test_public_names_have_docstrings(path):
    source = path.read_text()
    assert set(undocumented(source)) <= NEEDS_NONE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1", ["module"]),
        ('"""M."""\ndef f(): ...', ["f"]),
        ('"""M."""\nclass A: ...', ["A"]),
        ('"""M."""\ndef _f(): ...\nclass _A: ...', []),
        ('"""M."""\ndef f():\n    """F."""', []),
    ],
)
def test_a_missing_docstring_is_found(source, found):
    assert undocumented(source) == found


def module_sentences(source: str) -> int:
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return len(re.findall(r"[.!?](?:\s|$)", docstring))


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if label(p).startswith("impl_")], ids=label
)
def test_an_impl_says_what_is_particular_in_three_sentences(path):
    assert 1 <= module_sentences(path.read_text()) <= 3


def test_sentences_are_counted():
    assert module_sentences('"""One. Two `a.b`.\n\nThree! Four?"""') == 4


# --- tolerances, paths, names -----------------------------------------------


def tolerance_literals(source: str) -> list[str]:
    """Keywords and names that set a tolerance by hand."""
    words = {"rtol", "atol"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in words:
            found.append(node.arg)
        elif isinstance(node, ast.Attribute) and node.attr in {
            "allclose",
            "isclose",
            "approx",
            "assert_allclose",
            "assert_almost_equal",
        }:
            found.append(node.attr)
        elif isinstance(node, ast.Name) and node.id in words:
            found.append(node.id)
        elif isinstance(node, ast.arg) and node.arg in words:
            found.append(node.arg)
    return found


# The table and its ruler, and what holds the ruler itself to known lengths.
RULER = {"common/agreement.py", "tests/contracts/test_agreement.py"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES + TESTS if label(p) not in RULER], ids=label
)
def test_tolerances_stand_in_one_table(path):
    assert tolerance_literals(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("f(x, rtol=1e-3)", ["rtol"]),
        ("f(x, atol=t)", ["atol"]),
        ("np.allclose(x, y)", ["allclose"]),
        ("jnp.isclose(x, y)", ["isclose"]),
        ("x == pytest.approx(y)", ["approx"]),
        ("np.testing.assert_allclose(x, y)", ["assert_allclose"]),
        ("def f(x, rtol): ...", ["rtol"]),
        ("rtol = 1e-3", ["rtol"]),
        ("assert_close(x, y, dtype=d, quantity=q)", []),
        ("'rtol=1e-3'  # rtol", []),
    ],
)
def test_a_tolerance_is_found(source, found):
    assert tolerance_literals(source) == found


# In pieces, so that this file does not hold what it looks for.
MACHINE = re.compile("|".join(["/" + "work/", "/" + "tmp/", "/" + "root/"]))


def machine_paths(text: str) -> list[str]:
    return MACHINE.findall(text)


def test_no_file_names_a_path_of_one_machine():
    found = {
        label(path): machine_paths(path.read_text())
        for path in tracked()
        if machine_paths(path.read_text())
    }
    assert found == {}


def test_a_path_of_one_machine_is_found():
    text = "see /" + "work/main/x and /" + "tmp/y"
    assert machine_paths(text) == ["/" + "work/", "/" + "tmp/"]
    assert machine_paths("a network / work in progress; attempt") == []


VAGUE = {"utils", "util", "helpers", "helper", "base", "misc", "core"}


def vague_names(paths: Iterable[pathlib.Path]) -> list[str]:
    return [path.name for path in paths if path.stem in VAGUE]


def test_no_file_has_a_name_that_says_nothing():
    assert vague_names(tracked()) == []


def test_a_vague_name_is_found():
    paths = [pathlib.Path("a/utils.py"), pathlib.Path("b/state.py")]
    assert vague_names(paths) == ["utils.py"]


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_no_assert_answers_for_a_user(path):
    """User input gets an error that says what to do."""
    tree = ast.parse(path.read_text())
    asserts = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    assert asserts == []


# --- the axes ---------------------------------------------------------------


def test_every_axis_is_as_long_as_its_table(request):
    """A backend or a spec that no test ran would go unseen."""
    manager = request.session._fixturemanager
    for fixture, table in (
        ("backend", backends()),
        ("model", tuple(SPECS)),
        ("dtype", ("float32", "float64")),
    ):
        (definition,) = manager.getfixturedefs(fixture, request.node)
        assert tuple(definition.params) == table
        assert len(table) == len(set(table)) > 1
