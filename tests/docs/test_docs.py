"""The pages of the documentation: their code runs, and none is missing."""

import ast
import doctest
import importlib
import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import jax
import pytest

from common import cli
from common.benchmark import report as bench_report
from common.benchmark import suite as bench
from common.commands import COMMANDS
from common.layers.table import LAYERS
from common.models import find_spec, specs

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "_generated"} & set(path.relative_to(DOCS).parts)
)
FENCE = re.compile(r"^```(\S+)[^\n]*\n(.*?)^```$", re.M | re.S)
LITERALINCLUDE = re.compile(
    r"^```\{literalinclude\} (\S+)\n(.*?)^```$", re.M | re.S
)

LIBRARIES = ("equinox", "flax")

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(path.relative_to(DOCS)) for path in PAGES]
)


SLOW = (
    "checkpoints.md",
    "diff.md",
    "live_views.md",
    "move_a_model.md",
    "optimizers.md",
    "porting.md",
    "state.md",
    "training_step.md",
)
"""Pages whose snippets the README's test command leaves out."""

SEVERAL_DEVICES = "more_than_one_device.md"
"""The page whose snippets `test_many_devices.py` runs."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            path,
            id=str(path.relative_to(DOCS)),
            marks=[pytest.mark.exhaustive] if path.name in SLOW else [],
        )
        for path in PAGES
        if path.name != SEVERAL_DEVICES
    ],
)
def test_snippets_run(page):
    assert not failures_of_snippets(page)


def failures_of_snippets(page: pathlib.Path) -> str:
    """Runs the snippets of a page, and returns what failed."""
    source = _only(page, "pycon")
    parser = doctest.DocTestParser()
    test = parser.get_doctest(source, {}, page.name, str(page), 0)
    found: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    with jax.enable_x64(False):  # JAX's default, which the tests change
        runner.run(test, out=found.append)
    return "".join(found)


def _only(page: pathlib.Path, language: str) -> str:
    """Returns a page with every line blank that is not in a given language."""
    text, end, kept = page.read_text(), 0, []
    for match in FENCE.finditer(text):
        if match[1] == language:
            kept += ["\n" * text.count("\n", end, match.start(2)), match[2]]
            end = match.end(2)
    return "".join(kept)


@each_page
def test_every_code_block_is_tested(page):
    languages = {match[1] for match in FENCE.finditer(page.read_text())}
    if "file_format: mystnb\n" in page.read_text():
        languages -= {"{code-cell}"}  # the build executes it
    assert languages <= {
        "pycon",
        "console",
        "{eval-rst}",
        "{include}",
        "{literalinclude}",
        "{raw}",
        "{toctree}",
    }


@each_page
def test_commands_exist(page, monkeypatch):
    for command in COMMANDS.values():
        monkeypatch.setattr(command, "run", lambda options, console: 0)
    console = _only(page, "console")
    for words in re.findall(r"(?:-m common|eqx-vs-nnx)(.*)", console):
        assert cli.main(words.split()) == 0


@each_page
def test_literalincludes_exist(page):
    for path, options in LITERALINCLUDE.findall(page.read_text()):
        source = (page.parent / path).resolve()
        assert source.is_file(), path
        for name in re.findall(r"^:pyobject: (\S+)$", options, re.M):
            assert _defines(source, name), f"{path}: {name}"
        # The caption names the file that is shown.
        assert str(source.relative_to(ROOT)) in options


@each_page
def test_sources_named_in_text_exist(page):
    for path, name in re.findall(
        r"`((?:common|impl_\w+)/[\w/]+\.py)(?::([\w.]+))?`", page.read_text()
    ):
        assert (ROOT / path).is_file(), path
        assert not name or _defines(ROOT / path, name), f"{path}: {name}"


def _defines(path: pathlib.Path, dotted: str) -> bool:
    """Whether a file defines a class or function of a dotted name."""
    return _definition(path, dotted) is not None


def _definition(
    path: pathlib.Path, dotted: str
) -> ast.ClassDef | ast.FunctionDef | None:
    """Returns the class or function of a dotted name in a file, or None."""
    node: ast.AST = ast.parse(path.read_text())
    for word in dotted.split("."):
        found = [
            child
            for child in getattr(node, "body", [])
            if isinstance(child, ast.ClassDef | ast.FunctionDef)
            and child.name == word
        ]
        if not found:
            return None
        node = found[0]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return node


@each_page
def test_marked_lines_of_literalincludes_are_code(page):
    marked = []
    for path, options in LITERALINCLUDE.findall(page.read_text()):
        for numbers in re.findall(r"^:emphasize-lines: (.+)$", options, re.M):
            source = (page.parent / path).resolve()
            faults = _faults_of_marks(source, options, numbers)
            assert not faults, f"{path}: {faults}"
            marked.append(path)
    if page.parent.name == "recipes" and page.stem != "index":
        assert marked == [
            f"../../impl_{library}/recipes/{page.stem}.py"
            for library in LIBRARIES
        ]


@pytest.mark.parametrize(
    "numbers, fault",
    [
        ("18, 21-22", None),
        ("21, 18", "not in ascending order"),
        ("18, 18", "not in ascending order"),
        ("61", "line 61 is not shown"),
        ("0, 18", "line 0 is not shown"),
        ("3, 18", "line 3 is part of a docstring"),
        ("18-20", "line 19 is blank"),
        ("13", "line 13 is part of a docstring"),
    ],
)
def test_wrong_mark_of_a_literalinclude_is_found(numbers, fault):
    source = ROOT / "impl_equinox/recipes/custom_state.py"
    faults = _faults_of_marks(source, "", numbers)
    assert faults == ([] if fault is None else [fault])


def test_wrong_mark_of_a_part_of_a_literalinclude_is_found():
    source, option = ROOT / "impl_flax/backend.py", ":pyobject: Backend.split"
    assert not _faults_of_marks(source, option, "3, 9")
    assert _faults_of_marks(source, option, "2") == ["line 2 is a comment"]
    assert _faults_of_marks(source, option, "9, 99") == [
        "line 99 is not shown"
    ]
    assert _faults_of_marks(source, ":lines: 1-3", "1") == [
        "the test does not know :lines:"
    ]


def _faults_of_marks(
    source: pathlib.Path, options: str, numbers: str
) -> list[str]:
    """Returns what is wrong with the marked lines of a literalinclude.

    Args:
        source: The file that is included.
        options: The options of the directive, one per line.
        numbers: The value of its option `:emphasize-lines:`, which counts
            the lines that are shown from one.
    """
    known = {"caption", "pyobject", "dedent", "emphasize-lines"}
    if unknown := set(re.findall(r"^:([\w-]+):", options, re.M)) - known:
        return [f"the test does not know :{name}:" for name in sorted(unknown)]
    lines = source.read_text().splitlines()
    first, last = 1, len(lines)
    for name in re.findall(r"^:pyobject: (\S+)$", options, re.M):
        node = _definition(source, name)
        assert node is not None and node.end_lineno is not None, name
        # Sphinx shows the decorators of a definition, too.
        first = min(part.lineno for part in (node, *node.decorator_list))
        last = node.end_lineno
    docstrings = _lines_of_docstrings(source)
    marked: list[int] = []
    for words in numbers.split(","):
        start, _, stop = words.partition("-")
        marked += range(int(start), int(stop or start) + 1)
    faults = []
    if marked != sorted(set(marked)):
        faults.append("not in ascending order")
    for number in marked:
        line = first + number - 1
        if not first <= line <= last:
            faults.append(f"line {number} is not shown")
        elif line in docstrings:
            faults.append(f"line {number} is part of a docstring")
        elif not lines[line - 1].strip():
            faults.append(f"line {number} is blank")
        elif lines[line - 1].lstrip().startswith("#"):
            faults.append(f"line {number} is a comment")
    return faults


def _lines_of_docstrings(source: pathlib.Path) -> set[int]:
    """Returns the numbers of the lines of all docstrings of a file."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        if ast.get_docstring(node):
            text = node.body[0]
            assert text.end_lineno is not None
            found |= set(range(text.lineno, text.end_lineno + 1))
    return found


@each_page
def test_included_files_are_generated(page):
    made = "".join(
        path.read_text()
        for path in DOCS.glob("*.py")
        if path.stem != "reproduce"  # it lists them, and makes none
    )
    families = {f"layers_{row.family}.md" for row in LAYERS.values()}
    for name in re.findall(r"_generated/(\S+)", page.read_text()):
        assert name in families or f'"{name}"' in made, name


def test_model_has_a_page(model):
    page = DOCS / "models" / f"{model}.md"
    assert page.is_file(), f"write {page.relative_to(ROOT)}"
    text = page.read_text()
    for library in LIBRARIES:
        source = f"impl_{library}/models/{model}.py"
        assert f"{{literalinclude}} ../../{source}\n" in text
    name = type(find_spec(model, {})).__name__
    assert f"../../common/models/{model}.py\n" in text
    assert f":pyobject: {name}.forward\n" in text
    assert f"models/{model}\n" in (DOCS / "index.md").read_text()


def test_every_model_page_has_a_model():
    pages = {path.stem for path in (DOCS / "models").glob("*.md")}
    assert pages == set(specs())


def test_model_page_lists_three_differences(model):
    text = (DOCS / "models" / f"{model}.md").read_text()
    section = text.split("## What differs\n")[1].split("\n## ")[0]
    assert len(re.findall(r"^- ", section, re.M)) == 3


def test_every_family_of_layers_has_a_page():
    families = {row.family for row in LAYERS.values()}
    pages = {path.stem for path in (DOCS / "layers").glob("*.md")}
    assert pages == {*families, "index"}
    index = (DOCS / "layers" / "index.md").read_text()
    for family in families:
        assert f"\n{family}\n" in index
        text = (DOCS / "layers" / f"{family}.md").read_text()
        assert f"../_generated/layers_{family}.md\n" in text


def test_checklist_of_the_example_is_complete():
    text = (DOCS / "training_step.md").read_text()
    rows = re.findall(r"^\| (?!:-)(.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    shown = {what for what, *_ in rows}
    for words in (
        "stateful and stateless layers",
        "BatchNorm",
        "SpectralNorm",
        "created together",
        "batched call",
        "auxiliary output",
        "gradients for the parameters only",
        "jitted step",
        "training loop",
        "inference mode",
        "bound together",
        "discards the new state",
    ):
        assert any(words in what for what in shown), words


@pytest.mark.parametrize(
    "name", ["benchmark", "batch_norm", "agreement", "layers/index"]
)
def test_measured_numbers_are_generated(name):
    text = (DOCS / f"{name}.md").read_text()
    assert re.search(r"{include} (\.\./)?_generated/", text)
    # Options of directives and code state no measurement.
    prose = re.sub(r"^:.*$|`[^`]*`", "", FENCE.sub("", text), flags=re.M)
    assert not re.search(r"(?<![\w#])\d", prose)


def test_versions_are_generated():
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        assert not re.search(r"\d+\.\d+\.\d+", prose), page


def test_benchmark_page_shows_the_stored_samples():
    values = json.loads((DOCS / "data" / "bench.json").read_text())
    stored = bench_report.Benchmark.from_json(values)
    assert stored.races
    assert "_generated/benchmark.md" in (DOCS / "benchmark.md").read_text()


def test_differences_page_is_generated():
    text = (DOCS / "differences.md").read_text()
    assert "_generated/differences.md" in text
    assert "|" not in text


def test_plots_are_well_formed(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    plots = importlib.import_module("plots")
    curves = {"a": {0: 1.0, 1: 2.0, 10: 3.0}, "b": {1: 2.0, 10: 3.0}}
    for log in (False, True):
        svg = plots.lines(curves, x="steps", y="value", wanted=2.0, log=log)
        root = ElementTree.fromstring(svg)
        assert len(root.findall(".//polyline")) == 2
    values = json.loads((DOCS / "data" / "bench.json").read_text())
    for race in bench_report.Benchmark.from_json(values).races:
        root = ElementTree.fromstring(plots.ratios(race, 1.1))
        assert len(root.findall(".//circle")) == len(race.timings)


def test_stored_benchmark_is_a_full_run():
    """The figures of a quick run are not reliable."""
    settings = json.loads((DOCS / "data" / "bench.json").read_text())[
        "settings"
    ]
    assert tuple(settings["depths"]) == bench.DEPTHS
    assert settings["fits"] == bench.FITS
    assert settings["rounds"] == bench.ROUNDS


@each_page
def test_pages_compare_by_the_one_table(page):
    assert not re.search(r"\b[ra]tol\b|allclose|isclose", page.read_text())
