"""The API page documents every public name, parameter and attribute.

The page is made from docstrings, so that most of these tests read docstrings.
"""

import dataclasses
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

import common

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "api.md").read_text()
DIRECTIVE = re.compile(
    r"^\.\. auto(?P<kind>function|class|exception):: (?P<name>[\w.]+)(\(\))?\n"
    r"(   :members: (?P<members>.+)\n)?",
    re.M,
)
SECTION = re.compile(r"^(\w+):\n", re.M)
ENTRY = re.compile(r"^    (\*{0,2}\w+)( \([^)]+\))?:", re.M)


def found(name: str) -> Any:
    """Imports what a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def section(function: Any, title: str) -> dict[str, str]:
    """Returns the entries of a section of a docstring, by name."""
    text = inspect.cleandoc(function.__doc__ or "")
    words = SECTION.split(text)
    sections = dict(zip(words[1::2], words[2::2], strict=True))
    entries = ENTRY.split(sections.get(title, ""))
    names = (name.lstrip("*") for name in entries[1::3])
    return dict(zip(names, entries[3::3], strict=True))


def undocumented(function: Any) -> Iterator[str]:
    """Yields what a reader does not learn of a function."""
    signature = inspect.signature(function)
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    }
    described = section(function, "Args")
    for name in described:
        if name not in parameters:
            yield f"no parameter {name}"
    for name, parameter in parameters.items():
        sentence = described.get(name) or ""
        if len(sentence.split()) < 2:
            yield f"parameter {name}"
        if parameter.annotation is parameter.empty:
            yield f"type of {name}"
    text = function.__doc__ or ""
    if signature.return_annotation is signature.empty:
        yield "type of the result"
    elif signature.return_annotation not in (None, "None"):
        if not re.search(r"\bReturns?\b|The trainer itself|Yields", text):
            yield "the result"


def undocumented_attributes(kind: type) -> Iterator[str]:
    """Yields the fields without a sentence or a type."""
    described = section(kind, "Attributes")
    fields = getattr(kind, "_fields", ())
    if dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
    yield from (
        f"attribute {name}" for name in fields if name not in described
    )
    typed = {
        name
        for parent in kind.__mro__
        for name in parent.__dict__.get("__annotations__", {})
    }
    yield from (f"type of {name}" for name in described if name not in typed)


def problems(name: str, members: str | None) -> list[str]:
    """Returns what a reader does not learn of a directive's object."""
    thing = found(name)
    if not inspect.isclass(thing):
        return list(undocumented(thing))
    lines = list(undocumented_attributes(thing))
    for member in (members or "").split(", ") if members else ():
        value = inspect.getattr_static(thing, member)
        if isinstance(value, property):
            lines += [f"{member}: {x}" for x in of_property(value)]
        elif isinstance(value, classmethod | staticmethod):
            lines += [f"{member}: {x}" for x in undocumented(value.__func__)]
        elif inspect.isfunction(value):
            lines += [f"{member}: {x}" for x in undocumented(value)]
    return lines


def of_property(value: property) -> Iterator[str]:
    doc = inspect.cleandoc(value.__doc__ or "")
    if len(doc.split()) < 3:
        yield "a sentence"
    # Sphinx takes what is before a colon for the type.
    if re.match(r"[^`\n]*: ", doc):
        yield "a first line without a colon"
    assert value.fget is not None
    if "return" not in value.fget.__annotations__:
        yield "its type"


DIRECTIVES = [
    (match["name"], match["members"])
    for match in DIRECTIVE.finditer(TEXT)
    if not match["name"].startswith("common.protocol.")
]


def test_every_public_name_is_on_the_page():
    named = {name.rpartition(".")[2] for name, _ in DIRECTIVES}
    assert set(common.__all__) <= named


@pytest.mark.parametrize(
    ("name", "members"), DIRECTIVES, ids=[name for name, _ in DIRECTIVES]
)
def test_everything_is_documented(name, members):
    assert problems(name, members) == []


def test_every_public_member_is_on_the_page():
    for name, members in DIRECTIVES:
        thing = found(name)
        if name.count(".") > 1 or not inspect.isclass(thing):
            continue
        listed = set((members or "").split(", "))
        public = {
            member
            for member, value in vars(thing).items()
            if not member.startswith("_")
            and (callable(value) or isinstance(value, property | classmethod))
        }
        assert public <= listed | UNLISTED.get(name, set()), name


UNLISTED = {
    "common.Diff": {"records"},
    "common.Report": {"title", "columns"},
}
"""Public members that other modules of the project use."""


def planted(xs: int, ys) -> int:
    """Adds.

    Args:
        xs: the first number.
        zs: another number.
    """
    return xs + ys


def test_planted_gaps_are_found():
    assert list(undocumented(planted)) == [
        "no parameter zs",
        "parameter ys",
        "type of ys",
        "the result",
    ]

    class Planted:
        @property
        def verdict(self):
            """One sentence: whether all agree."""
            return ""

    assert list(of_property(Planted.__dict__["verdict"])) == [
        "a first line without a colon",
        "its type",
    ]
