"""Docstrings exist, names follow the glossary, and errors tell what to do."""

import ast
import re

import pytest

from tests.conventions.sources import (
    ROOT,
    SOURCES,
    each_source,
    for_each,
    label,
)

# --- docstrings -------------------------------------------------------------


def is_public(node: ast.AST) -> bool:
    return not getattr(node, "name", "_").startswith("_")


def undocumented(source: str) -> list[str]:
    """Returns the public classes and functions without a docstring.

    The module itself counts. Nested functions and methods do not.
    """
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else ["module"]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if not isinstance(node, (*functions, ast.ClassDef)):
            continue
        if is_public(node) and not ast.get_docstring(node):
            missing.append(node.name)
    return missing


@each_source
def test_public_names_have_docstrings(path):
    assert undocumented(path.read_text()) == []


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


@for_each(p for p in SOURCES if label(p).startswith("impl_"))
def test_module_docstrings_of_impls_have_at_most_three_sentences(path):
    assert 1 <= module_sentences(path.read_text()) <= 3


def test_sentences_are_counted():
    assert module_sentences('"""One. Two `a.b`.\n\nThree! Four?"""') == 4


# --- the glossary -----------------------------------------------------------

# A word that names must not use, and the word for that idea (CONTRIBUTING.md).
INSTEAD = {
    "apart": "error",
    "off": "error",
    "distance": "error",
    "difference": "error or known_difference",
    "differences": "errors or known_differences",
    "discrepancy": "error",
    "deviation": "error",
    "parting": "divergence",
    "meaning": "definition",
    "truth": "definition",
    "own": "custom",
    "strange": "unmatched",
}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


def words_of(name: str) -> list[str]:
    """Splits a name in snake case or camel case into lower-case words."""
    return [word.lower() for word in WORD.findall(name)]


def public_names(source: str) -> list[str]:
    """Returns the names of public functions, classes, methods and fields."""
    names: list[str] = []

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if is_public(node):
                    names.append(node.name)
                    if isinstance(node, ast.ClassDef):
                        visit(node.body)
                    else:
                        names.extend(arg.arg for arg in node.args.args)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = (
                    node.targets
                    if isinstance(node, ast.Assign)
                    else [node.target]
                )
                names.extend(
                    target.id
                    for target in targets
                    if isinstance(target, ast.Name)
                    and not target.id.startswith("_")
                )

    visit(ast.parse(source).body)
    return names


def wrong_words(source: str) -> list[str]:
    """Returns public names that use a word which the glossary replaces."""
    found = []
    for name in public_names(source):
        words = words_of(name)
        for word in words:
            known = word.startswith("difference") and "known" in words
            known = known or "round_off" in name.lower()
            if word in INSTEAD and not known:
                found.append(name)
    return found


# The command `differences` and the layers' own vocabulary.
ALLOWED = {
    "common/commands/differences.py": {"differences", "DIFFERENCES"},
    "common/cli.py": {"differences", "DIFFERENCES"},
}


@each_source
def test_public_names_follow_the_glossary(path):
    allowed = ALLOWED.get(label(path), set())
    assert set(wrong_words(path.read_text())) <= allowed


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def difference(x): ...", ["difference"]),
        ("class Row:\n    off: float", ["off"]),
        ("class LargestDifference: ...", ["LargestDifference"]),
        ("def f(truth): ...", ["truth"]),
        ("def known_differences(): ...", []),
        ("class KnownDifference: ...", []),
        ("def offset(x): ...\ndef _apart(): ...", []),
        ("def zero_round_off(x): ...", []),
    ],
)
def test_a_word_outside_the_glossary_is_found(source, found):
    assert wrong_words(source) == found


def test_the_glossary_lists_the_words_to_use():
    text = (ROOT / "CONTRIBUTING.md").read_text().lower()
    _, _, glossary = text.partition("## glossary")
    for word in (
        "error",
        "divergence",
        "known difference",
        "mismatch",
        "definition",
        "custom layer",
        "stock layer",
        "counterpart",
        "layout",
    ):
        assert f"**{word}**" in glossary


# --- error messages ---------------------------------------------------------

# Fixes that tell a user nothing: an order without what to write, or where.
EMPTY_FIX = re.compile(
    r"(?:Adjust|Change|Check|Choose|Correct|Fix|Lower|Pick|Raise|Rename|Shorten"
    r"|Write) (?:it|this|these|one of these|the \w+(?: (?:or|and) .+?)?)"
    r"(?: again)?\.(?= |$)"
    r"|Pass (?:an?|another|whole) (?:\w+ )?\w+\.(?= |$)"
    r"|Move it into this range\.|Mend",
    re.M,
)


def empty_fixes(source: str) -> list[str]:
    """Returns the phrases in string literals that tell a user nothing."""
    literals = "\n".join(
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return EMPTY_FIX.findall(literals)


@each_source
def test_errors_end_with_something_to_do(path):
    assert empty_fixes(path.read_text()) == []


@pytest.mark.parametrize(
    "fix",
    [
        "Raise it.",
        "Pick one of these.",
        "Correct the name.",
        "Correct the axis or the names.",
        "Pass a whole number.",
    ],
)
def test_an_empty_fix_is_found(fix):
    source = f'raise ValueError(f"seed: got {{x}}, expected 1. " "{fix}")'
    assert empty_fixes(source) == [fix]


def test_a_fix_that_says_something_is_none():
    assert empty_fixes('"Pass an integer in this range, such as 0."') == []
