"""Rules about the code that no linter checks, and a violation of each.

A rule is a function of source text that returns what it found, so that its
own test can plant a violation.
"""

import ast
import pathlib
import re
from collections.abc import Iterable

import pytest

from tests.conventions.sources import (
    IMPLS,
    PACKAGES,
    ROOT,
    SOURCES,
    TESTS,
    each_source,
    for_each,
    label,
    tracked_files,
)

PYTHON = sorted({*SOURCES, *TESTS, *(ROOT / "docs").glob("**/*.py")})


def test_a_file_that_fails_is_named():
    @for_each([ROOT / "LICENSE", ROOT / "README.md"])
    def check(path):
        assert path.name == "LICENSE"

    with pytest.raises(AssertionError, match="^README.md: ") as caught:
        check()
    assert "LICENSE:" not in str(caught.value)


def test_there_are_files_to_check():
    assert {label(p).split("/")[0] for p in SOURCES} == set(PACKAGES)
    assert pathlib.Path(__file__) in TESTS


# --- tolerances -------------------------------------------------------------


def tolerance_literals(source: str) -> list[str]:
    """Returns the keywords and names that set a tolerance by hand."""
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


# The tolerance table, and the test that checks `relative_error` itself.
EXEMPT = {"common/agreement.py", "tests/contracts/test_agreement.py"}


@for_each(p for p in SOURCES + TESTS if label(p) not in EXEMPT)
def test_tolerances_are_set_in_one_table(path):
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


# --- paths, sizes and names of files ----------------------------------------

# In pieces, so that this file does not contain what it looks for.
MACHINE = re.compile("|".join(["/" + "work/", "/" + "tmp/", "/" + "root/"]))


def machine_paths(text: str) -> list[str]:
    return MACHINE.findall(text)


def test_no_file_contains_a_path_of_one_machine():
    found = {
        label(path): machine_paths(path.read_text())
        for path in tracked_files()
        if machine_paths(path.read_text())
    }
    assert found == {}


def test_a_path_of_one_machine_is_found():
    text = "see /" + "work/main/x and /" + "tmp/y"
    assert machine_paths(text) == ["/" + "work/", "/" + "tmp/"]
    assert machine_paths("a network / work in progress; attempt") == []


MAX_LINES = 400


def too_long(sources: dict[str, str]) -> list[str]:
    return [
        name
        for name, source in sources.items()
        if len(source.splitlines()) > MAX_LINES
    ]


def test_no_python_file_is_too_long():
    assert too_long({label(path): path.read_text() for path in PYTHON}) == []


def test_a_file_that_is_too_long_is_found():
    sources = {"a.py": "x = 1\n" * MAX_LINES, "b.py": "x\n" * (MAX_LINES + 1)}
    assert too_long(sources) == ["b.py"]


VAGUE = {"utils", "util", "helpers", "helper", "base", "misc", "core"}


def vague_names(paths: Iterable[pathlib.Path]) -> list[str]:
    return [path.name for path in paths if path.stem in VAGUE]


def test_file_names_say_what_is_in_the_file():
    assert vague_names(tracked_files()) == []


def test_a_vague_file_name_is_found():
    paths = [pathlib.Path("a/utils.py"), pathlib.Path("b/state.py")]
    assert vague_names(paths) == ["utils.py"]


# --- expressions ------------------------------------------------------------


@each_source
def test_user_input_is_not_checked_with_assert(path):
    tree = ast.parse(path.read_text())
    asserts = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    assert asserts == []


def lambdas(source: str) -> list[int]:
    tree = ast.parse(source)
    return [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Lambda)]


# The modules that define what a rule is written with.
STEPS = ("steps", "joins", "layout", "rules")


@pytest.mark.parametrize("impl", IMPLS)
def test_state_rules_are_data(impl):
    """A layout that is a lambda can neither be printed nor composed."""
    paths = [
        ROOT / impl / "rules.py",
        *(ROOT / "common" / "layouts" / f"{name}.py" for name in STEPS),
    ]
    found = {label(path): lambdas(path.read_text()) for path in paths}
    assert not any(found.values()), found


def test_a_lambda_is_found():
    assert lambdas("x = 1\nf = {'a': lambda x: x.T}") == [2]


def bindings_named_it(source: str) -> list[int]:
    """Returns the lines that bind the name `it`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (
            isinstance(node, ast.Name)
            and node.id == "it"
            and isinstance(node.ctx, ast.Store)
        )
        or (isinstance(node, ast.arg) and node.arg == "it")
    ]


@for_each(PYTHON)
def test_variables_are_named_for_what_they_hold(path):
    assert bindings_named_it(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "it = 1",
        "for it in xs: ...",
        "[it.x for it in xs]",
        "f = lambda it: it.x",
        "def f(it): ...",
    ],
)
def test_a_variable_named_it_is_found(source):
    assert bindings_named_it(source) == [1]
