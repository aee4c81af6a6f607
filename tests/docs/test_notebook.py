"""The notebook: its cells are those of the two scripts, which agree."""

import ast
import contextlib
import importlib
import io
import json
import pathlib
import re
import runpy
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from common import port
from common.agreement import assert_close

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stateful_operations.md").read_text()
SCRIPTS = {
    "equinox": ROOT / "impl_equinox" / "recipes" / "stateful_operations.py",
    "nnx": ROOT / "impl_flax" / "recipes" / "stateful_operations.py",
}
LAST = "## Carry the trained model across\n"


class Cell(NamedTuple):
    tags: list[str]
    marked: str
    code: str


def page_cells(text: str) -> list[Cell]:
    """Returns the cells of a page, with their tags and marked lines."""
    found = []
    for options, code in re.findall(
        r"^```\{code-cell\} python\n((?::[^\n]*\n)*)\n(.*?)\n```$",
        text,
        re.M | re.S,
    ):
        (tags,) = re.findall(r"^:tags: \[(.*)\]$", options, re.M)
        marked = re.findall(r"^:emphasize-lines: (.*)$", options, re.M)
        found.append(Cell(tags.split(", "), "".join(marked), code))
    return found


def script_cells(source: str) -> list[str]:
    """Returns the cells of a script, without its docstring."""
    return [cell.strip("\n") for cell in source.split("# %%\n")[1:]]


CELLS = page_cells(PAGE)


# --- the page and the scripts -----------------------------------------------


@pytest.mark.parametrize("library", SCRIPTS)
def test_the_cells_are_those_of_the_script(library):
    shown = [cell.code for cell in CELLS if library in cell.tags]
    assert shown == script_cells(SCRIPTS[library].read_text())


def test_every_cell_is_shown():
    assert len(CELLS) == PAGE.count("{code-cell}")
    assert all(
        set(cell.tags) & {*SCRIPTS, "crossing"} and cell.code for cell in CELLS
    )


def test_a_cell_that_drifts_is_found():
    source = SCRIPTS["nnx"].read_text()
    changed = source.replace("optimizer.update", "optimizer.upgrade")
    assert script_cells(changed) != script_cells(source)


def imported(code: str) -> set[str]:
    """Returns the packages that a cell imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names


def test_only_the_last_sections_need_this_project():
    before, after = PAGE.split(LAST)
    names = set[str]().union(*(imported(c.code) for c in page_cells(before)))
    assert names == {"equinox", "flax", "jax", "optax"}
    assert {"crossing"} == {tag for c in page_cells(after) for tag in c.tags}
    assert imported("from common.agreement import tolerance") == {"common"}


@pytest.mark.parametrize("library", SCRIPTS)
def test_a_script_imports_its_own_library_only(library):
    other = {"equinox": "flax", "nnx": "equinox"}[library]
    assert imported(SCRIPTS[library].read_text()).isdisjoint(
        {other, "common", "impl_equinox", "impl_flax"}
    )


# --- what the scripts do ----------------------------------------------------


class Run(NamedTuple):
    names: dict[str, Any]
    printed: str

    @property
    def losses(self) -> list[float]:
        return [
            float(x) for x in re.findall(r"^\d\.\d{5}$", self.printed, re.M)
        ]


@pytest.fixture(scope="session")
def runs() -> dict[str, Run]:
    found = {}
    for library, path in SCRIPTS.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            found[library] = Run(runpy.run_path(str(path)), printed.getvalue())
    return found


def rules() -> str:
    """Returns the rules that the page passes to `port`."""
    (text,) = re.findall(r'^rules = """\n(.*?)"""$', PAGE, re.M | re.S)
    return text


def float64(tree: Any) -> Any:
    """Returns an NNX module in float64; NNX creates float32."""
    return jax.tree.map(
        lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, tree
    )


@pytest.mark.parametrize("library", SCRIPTS)
def test_a_script_prints_five_losses_that_fall(runs, library):
    losses = runs[library].losses
    assert len(losses) == runs[library].names["steps"] == 5
    assert losses == sorted(losses, reverse=True)


def test_the_data_are_the_same(runs):
    left, right = (run.names for run in runs.values())
    for name in ("xs", "ys", "test_xs"):
        np.testing.assert_array_equal(left[name], right[name])


def test_predictions_are_equal_after_the_port(runs):
    left, right = (run.names for run in runs.values())
    twin = float64(right["NNXModel"](nnx.Rngs(0)))
    twin = port((left["model"], left["state"]), twin, rules=rules())
    view = nnx.view(twin, use_running_average=True)
    predictions = right["nnx_evaluate"](view, left["test_xs"])
    assert_close(
        predictions, left["pred_test_ys"], dtype="float64", quantity="eval"
    )
    assert not twin.norm1.use_running_average


def test_losses_are_equal_from_the_same_start(runs):
    left, right = (run.names for run in runs.values())
    start = eqx.nn.make_with_state(left["Model"])(left["mkey"])
    twin = port(start, float64(right["NNXModel"](nnx.Rngs(0))), rules=rules())
    optimizer = nnx.Optimizer(
        twin, optax.adam(right["learning_rate"]), wrt=nnx.Param
    )
    losses = [
        float(right["nnx_make_step"](twin, optimizer, left["xs"], left["ys"]))
        for _ in range(left["steps"])
    ]
    assert [round(loss, 5) for loss in losses] == runs["equinox"].losses


# --- what the build makes of the page ---------------------------------------


@pytest.fixture
def notebooks(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("notebooks")


def test_marked_lines_exist(notebooks):
    marked = [cell for cell in CELLS if cell.marked]
    assert len(marked) > 10
    for cell in marked:
        lines = cell.code.split("\n")
        for number in notebooks.line_numbers(cell.marked):
            assert lines[number - 1].strip(), cell


def test_lines_are_marked(notebooks):
    assert notebooks.line_numbers("1,4-6") == [1, 4, 5, 6]
    nodes = pytest.importorskip("docutils.nodes")
    source = nodes.literal_block()
    cell = nodes.container("", source, cell_metadata={"emphasize-lines": 2})
    plain = nodes.container("", nodes.literal_block())
    doctree: Any = nodes.section("", plain, cell)
    notebooks.mark_lines(None, doctree)
    assert source["highlight_args"] == {"hl_lines": [2]}


def test_the_download_has_no_links_that_lead_nowhere(notebooks, tmp_path):
    markdown = (
        "See [port](porting.md), [this](#here) and [JAX](https://jax.dev).\n",
        "\n",
        "Run: {nb-download}`x.ipynb`\n",
        "\n",
        "End.",
    )
    cells = [
        {"cell_type": "markdown", "source": markdown},
        {"cell_type": "code", "source": ["f = [x](y)"]},
    ]
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"hide-toc": 1}}))

    class App:
        class env:
            docname = "page"

            class mystnb_config:
                output_folder = str(tmp_path)

    notebooks.write_downloads(App, None)
    App.env.docname = "another"
    notebooks.write_downloads(App, None)  # a page without cells
    written = json.loads(path.read_text())
    assert written["metadata"] == {}
    assert ["".join(cell["source"]) for cell in written["cells"]] == [
        "See port, this and [JAX](https://jax.dev).\n\nEnd.",
        "f = [x](y)",
    ]
