"""Imports go one way, packages form no circle, and one module is dynamic."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

import common
from common.models import SPECS
from common.registry import backends
from tests.conventions.sources import (
    IMPLS,
    ROOT,
    SOURCES,
    each_source,
    for_each,
    label,
)

LIBRARIES = {"equinox": "impl_equinox", "flax": "impl_flax"}


# --- between the three packages and the two libraries -----------------------


def imported_packages(source: str) -> set[str]:
    """Returns the top-level packages that a source imports, anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def forbidden_imports(package: str, source: str) -> set[str]:
    """Returns imports of another package's library, and of other impls."""
    forbidden = {x for x, home in LIBRARIES.items() if home != package}
    forbidden |= {impl for impl in IMPLS if impl != package}
    return imported_packages(source) & forbidden


@each_source
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
        ("common", "from impl_flax import canonical", "impl_flax"),
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
        ("impl_equinox", "import equinox\nfrom impl_equinox import rules"),
        ("impl_flax", "from flax import nnx\nfrom common import state"),
        ("common", "from . import flax\nimport jax\nname = 'flax'"),
    ],
)
def test_other_imports_are_allowed(package, source):
    assert forbidden_imports(package, source) == set()


# --- reading a file executes nothing -----------------------------------------

PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


@each_source
def test_no_pickle_is_read_or_written(path):
    source = path.read_text()
    assert not imported_packages(source) & PICKLES
    assert "allow_pickle=True" not in source


def test_an_import_of_pickle_is_found():
    source = "def read(file):\n    import pickle\n"
    assert imported_packages(source) & PICKLES


# --- between the rooms ------------------------------------------------------


def room_of(module: str) -> str:
    """Returns the room that a module is in: `common.training`, say."""
    return ".".join(module.split(".")[:2])


def room_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Returns the rooms that each room imports.

    Imports inside functions count; those for type checkers only do not.

    Args:
        sources: the source text of each module by its dotted name.
    """
    rooms = {room_of(module) for module in sources}
    graph: dict[str, set[str]] = {room: set() for room in rooms}
    for module, source in sources.items():
        for name in _imported_names(ast.parse(source)):
            target = room_of(name)
            if target in rooms and target != room_of(module):
                graph[room_of(module)].add(target)
    return graph


def _imported_names(tree: ast.AST) -> list[str]:
    """Returns the dotted names that a syntax tree imports."""
    names: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names += _imported_names(node)
    return names


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Returns rooms that import each other in a circle, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def reachable(graph: Mapping[str, set[str]], room: str) -> set[str]:
    """Returns every room that a room imports, directly or not."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def module_name(path) -> str:
    return (
        label(path)
        .removesuffix(".py")
        .removesuffix("/__init__")
        .replace("/", ".")
    )


@pytest.fixture(scope="module")
def rooms():
    """The rooms that each room imports. Parsing every file takes a second."""
    return room_imports(
        {
            module_name(path): path.read_text()
            for path in SOURCES
            if label(path) != "common/__init__.py"
        }
    )


def test_rooms_do_not_import_each_other_in_a_circle(rooms):
    assert circle(rooms) == []


@pytest.mark.parametrize("room", ["common.layers", "common.divergence"])
def test_room_imports_neither_registry_nor_training(room, rooms):
    assert not reachable(rooms, room) & {"common.registry", "common.training"}


def test_a_circle_between_rooms_is_found():
    graph = room_imports(
        {
            "common.a.x": "from common.b import f",
            "common.b": "def f():\n    from common.c.z import g",
            "common.c.z": "import common.a.x",
        }
    )
    assert set(circle(graph)) == {"common.a", "common.b", "common.c"}
    assert reachable(graph, "common.a") >= {"common.c"}


def test_an_import_for_type_checkers_makes_no_circle():
    graph = room_imports(
        {
            "common.a": "from common.b import f",
            "common.b": "if TYPE_CHECKING:\n    from common.a import g",
        }
    )
    assert circle(graph) == []


# --- dynamic imports --------------------------------------------------------

DYNAMIC = {
    "common/__init__.py",  # the public names, from a table of constants
    "common/registry.py",
    "common/commands/arguments.py",  # the user's own functions
}


def dynamic_imports(source: str) -> list[str]:
    """Returns the calls that import a module by a computed name."""
    names = {"import_module", "__import__"}
    return [
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "attr", getattr(node.func, "id", "")))
        in names
    ]


@for_each(p for p in SOURCES if label(p) not in DYNAMIC)
def test_only_the_registry_imports_by_name(path):
    assert dynamic_imports(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "importlib.import_module(f'impl_{name}.x')",
        "import_module('x')",
        "def f():\n    return __import__(name)",
    ],
)
def test_a_dynamic_import_is_found(source):
    assert len(dynamic_imports(source)) == 1


# --- what an import loads ---------------------------------------------------


FORKS = """
import os, sys
import jax, optax  # which take longest, and which every backend imports
for program in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(program, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, program
"""


def python(program: str, *arguments: str) -> list[str]:
    """Runs a program in a new process; returns the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
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


def test_a_backend_loads_only_its_own_library():
    programs = [
        f"import sys\nfrom common.registry import find_backend\n"
        f"find_backend({backend!r})\n"
        "print(*({'equinox', 'flax', 'orbax'} & sys.modules.keys()))"
        for backend in backends()
    ]
    loaded = [line.split() for line in python(FORKS, *programs)]
    assert loaded == [
        [backend] * (backend in LIBRARIES) for backend in backends()
    ]


def test_public_names_are_functions_whichever_is_imported_first():
    programs = [
        f"from common import {first}\n"
        f"from common import {', '.join(common.__all__)}\n"
        "print(backends(), specs(), *map(callable, (build, compare, diff)))"
        for first in ("build", "specs")
    ]
    expected = f"{backends()} {tuple(SPECS)} True True True"
    assert python(FORKS, *programs) == [expected, expected]
