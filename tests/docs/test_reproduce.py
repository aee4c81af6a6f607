"""Every figure says how to measure it again, and links all its numbers."""

import functools
import importlib
import pathlib
import re
import shlex
import types

import pytest

from common import cli
from common.commands import COMMANDS

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
INCLUDED = re.compile(r"_generated/([\w.]+)")
PAGES = {
    str(path.relative_to(DOCS)): INCLUDED.findall(path.read_text())
    for path in sorted(DOCS.rglob("*.md"))
    if not {"_build", "_generated"} & set(path.relative_to(DOCS).parts)
}
"""The generated files that each page includes."""


def load(name: str) -> types.ModuleType:
    """Imports a module of the folder `docs`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def reproduce():
    return load("reproduce")


@pytest.fixture(scope="module")
def generate():
    return load("generate")


def without_source(pages, reproduce) -> list[str]:
    """Returns the included files of which no page says the source.

    A plot has no text of its own: a table of the same source must be on the
    page.
    """
    missing = []
    for page, included in pages.items():
        said = {
            source
            for name in included
            if name.endswith(".md")
            for source in reproduce.SOURCES.get(name, ())
        }
        for name in set(included) - set(reproduce.UNMEASURED):
            sources = reproduce.SOURCES.get(name)
            if not sources or not said.issuperset(sources):
                missing.append(f"{page}: {name}")
    return missing


def test_every_figure_on_a_page_has_a_source(reproduce):
    assert without_source(PAGES, reproduce) == []
    assert not set(reproduce.SOURCES) & set(reproduce.UNMEASURED)


@pytest.mark.parametrize("name", ["new_figure.md", "benchmark.svg"])
def test_a_figure_without_a_source_is_found(name, reproduce):
    pages = {"page.md": [name, "names.md"]}
    assert without_source(pages, reproduce) == [f"page.md: {name}"]


def test_every_source_is_of_a_file_that_a_page_includes(reproduce):
    included = {name for names in PAGES.values() for name in names}
    assert {*reproduce.SOURCES, *reproduce.UNMEASURED} <= included


def test_a_generated_file_ends_with_its_source(reproduce):
    text = reproduce.with_source("recipe_costs.md", "| a |\n\n")
    assert text == (
        "| a |\n\n:::{container} reproduce\n"
        "Reproduce: `python docs/measure_recipes.py` "
        "({download}`recipe_costs.json </data/recipe_costs.json>`)\n:::\n"
    )
    for name in ("names.md", "benchmark.svg", "batch_norm.json"):
        assert reproduce.with_source(name, "text") == "text"


def test_a_generated_file_without_a_source_is_refused(
    reproduce, assert_raises
):
    assert_raises(
        functools.partial(reproduce.with_source, "new_figure.md", "text"),
        ValueError,
        "generated file: got new_figure.md, expected one that .*",
    )


@pytest.fixture(autouse=True)
def idle_commands(monkeypatch):
    """Lets the commands of the project only parse their arguments."""
    for command in COMMANDS.values():
        monkeypatch.setattr(command, "run", lambda options, console: 0)


def missing(command: str, generate) -> list[str]:
    """Returns what a command names that does not exist."""
    program, *words = shlex.split(command)
    if program == "eqx-vs-nnx":
        return [] if cli.main(words) == 0 else [command]
    assert program == "python"
    if words[0] == "-m":
        folder = ROOT / words[1].replace(".", "/")
        return [] if (folder / "__main__.py").is_file() else [words[1]]
    if words[0] == "docs/generate.py":
        return [word for word in words[1:] if word not in generate.PARTS]
    return [] if (ROOT / words[0]).is_file() else [words[0]]


def test_every_command_exists(reproduce, generate):
    for source in {s for group in reproduce.SOURCES.values() for s in group}:
        assert missing(source.command, generate) == []


@pytest.mark.parametrize(
    "command",
    [
        "python docs/measure_nothing.py",
        "python docs/generate.py nothing",
        "python -m tests.divergence.nothing",
    ],
)
def test_a_command_that_does_not_exist_is_found(command, generate):
    (found,) = missing(command, generate)
    assert "nothing" in found


def test_a_part_that_does_not_exist_is_refused(
    generate, tmp_path, assert_raises
):
    assert_raises(
        functools.partial(generate.write_parts, ["batch_nrm"], tmp_path),
        ValueError,
        "part: got 'batch_nrm', expected .* Perhaps you meant 'batch_norm'.",
    )


def test_the_numbers_of_every_source_are_stored_or_written(reproduce):
    written = "".join(path.read_text() for path in DOCS.glob("*_pages.py"))
    written += (DOCS / "generate.py").read_text()
    for source in {s for group in reproduce.SOURCES.values() for s in group}:
        folder, name = source.data.split("/")
        if folder == "_generated":
            assert f'"{name}": ' in written, source.data
        else:
            assert (DOCS / source.data).is_file()
