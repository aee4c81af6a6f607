"""The dictionary: its snippets run, and the names in it exist."""

import dataclasses
import functools
import importlib
import pathlib
import re
import runpy
import tempfile

import jax
import pytest

from common.comparison import layer_defaults
from common.layers.table import LAYERS
from docs import dictionary_rows
from docs.dictionary_rows import LIBRARIES, Snippet

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SECTIONS = dictionary_rows.sections()
ROWS = dictionary_rows.rows()
MAX_LINES = 3
MAX_COLUMNS = 79
MAX_BRIEF = 50

each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_every_file_is_a_section():
    files = {path.stem for path in dictionary_rows.FOLDER.glob("*.toml")}
    assert files == set(dictionary_rows.SECTIONS)


def test_rows_are_many_and_their_anchors_unique():
    anchors = [row.name for row in ROWS]
    anchors += [section.name for section in SECTIONS]
    assert len(ROWS) >= 45
    assert len(anchors) == len(set(anchors))


# --- snippets ---------------------------------------------------------------


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the snippets of each library import and define."""
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(False):
        folder = tmp_path_factory.mktemp("dictionary")
        patch.setattr(tempfile, "tempdir", str(folder))
        return {
            library: runpy.run_path(
                str(dictionary_rows.FOLDER / f"prelude_{library}.py")
            )
            for library in LIBRARIES
        }


def wrong_values(row, names) -> list[str]:
    """Returns what is printed, where a row states something else."""
    with jax.enable_x64(False):  # JAX's default, which the tests change
        printed = {
            library: row.snippet(library).run(names[library])
            for library in LIBRARIES
        }
    found = [
        f"{library}: {value}"
        for library, value in printed.items()
        if value != row.snippet(library).value
    ]
    if row.same != (len(set(printed.values())) == 1):
        found.append(f"same: {not row.same}")
    return found


@each_row
def test_snippets_have_the_values_that_they_state(row, names):
    assert wrong_values(row, names) == []


PLANTED = dictionary_rows.Row(
    want="",
    brief=("x", "x"),
    equinox="x  # [0. 1. 2.]",
    flax="x  # [0. 1. 2.]",
    note="",
)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"flax": "x + 1  # [0. 1. 2.]"}, ["flax: [1. 2. 3.]", "same: False"]),
        ({"flax": "x + 1  # [1. 2. 3.]"}, ["same: False"]),
        ({"flax": "x + 1  # [1. 2. 3.]", "same": False}, []),
        ({"same": False}, ["same: True"]),
        ({"flax": "x[None, :, 0]  # raises IndexError", "same": False}, []),
        (
            {"flax": "x  # raises IndexError", "same": False},
            ["flax: raises nothing"],
        ),
        (
            {"flax": "x.shape = 3  # raises IndexError", "same": False},
            ["flax: raises AttributeError"],
        ),
    ],
)
def test_a_wrong_value_is_found(changes, found, names):
    changed = dataclasses.replace(PLANTED, **changes)
    assert wrong_values(changed, names) == found


def test_a_snippet_must_state_a_value(assert_raises):
    assert_raises(
        functools.partial(Snippet.parse, "x = 1\nx"),
        ValueError,
        "last line of a snippet: got 'x', expected an expression .*",
    )


def test_rows_are_short():
    for row in ROWS:
        for library in LIBRARIES:
            lines = getattr(row, library).strip().splitlines()
            assert len(lines) <= MAX_LINES, row.want
            assert max(map(len, lines)) <= MAX_COLUMNS, row.want
        assert row.want[0].isupper() and not row.want.endswith((".", "?"))
        assert row.note.strip().endswith("."), row.want


def is_part(brief: str, code: str) -> bool:
    """Whether `brief` is made of parts of the code, in order."""
    parts = re.split(r" ?(?<!\[)\.\.\.(?!\]) ?", brief)
    return bool(re.search(".*".join(map(re.escape, parts)), code, re.S))


def test_what_the_table_shows_is_part_of_the_snippets():
    for row in ROWS:
        for library, brief in zip(LIBRARIES, row.brief, strict=True):
            assert is_part(brief, getattr(row, library)), row.want
            assert len(brief) <= MAX_BRIEF, row.want


@pytest.mark.parametrize(
    ("brief", "found"),
    [
        ("eqx.filter_jit(model)", True),
        ("filter_jit ... model.count[...]", True),
        ("f(..., x)", True),
        ("model.count ... filter_jit", False),
        ("eqx.filter_grad", False),
    ],
)
def test_what_is_no_part_of_a_snippet_is_found(brief, found):
    code = "y = eqx.filter_jit(model)(state, x)\nmodel.count[...]"
    assert is_part(brief.replace("f(", "filter_jit("), code) == found


# --- names ------------------------------------------------------------------

MODULES = {
    "checkify": "jax.experimental.checkify",
    "equinox": "equinox",
    "eqx": "equinox",
    "flax": "flax",
    "jax": "jax",
    "jnp": "jax.numpy",
    "nnx": "flax.nnx",
    "ocp": "orbax.checkpoint",
    "optax": "optax",
}
DOTTED = re.compile(rf"(?<![\w.])(?:{'|'.join(MODULES)})(?:\.[A-Za-z]\w*)+")


def missing_names(text: str) -> list[str]:
    """Returns the dotted names in a text that the libraries do not have."""
    missing = []
    for dotted in sorted(set(DOTTED.findall(text))):
        alias, *attributes = dotted.split(".")
        try:
            functools.reduce(
                getattr, attributes, importlib.import_module(MODULES[alias])
            )
        except AttributeError:
            missing.append(dotted)
    return missing


def test_every_name_exists():
    texts = [path.read_text() for path in dictionary_rows.FOLDER.iterdir()]
    texts.append((DOCS / "dictionary.md").read_text())
    assert missing_names("\n".join(texts)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("eqx.filter_jitt(call)(x)", ["eqx.filter_jitt"]),
        ("(`nnx.views`)", ["nnx.views"]),
        ("[jax.tree.mapp]", ["jax.tree.mapp"]),
        (
            "eqx.nn.Linear.wieght, nnx.Rngs(0).no_check",
            ["eqx.nn.Linear.wieght"],
        ),
        ("optax.adam; jnp.zeros; my_jax.x; model.jax.x", []),
    ],
)
def test_a_name_that_does_not_exist_is_found(text, found):
    assert missing_names(text) == found


@pytest.mark.parametrize(
    ("equinox", "flax"),
    [
        ("eqx.Module", "nnx.Module"),
        ("key=", "rngs="),
        ("eqx.is_inexact_array", "nnx.Param"),
        ("eqx.nn.StateIndex", "nnx.BatchStat"),
        ("eqx.nn.StateIndex", "nnx.Variable"),
        ("eqx.filter_jit", "nnx.jit"),
        ("eqx.filter_grad", "nnx.grad"),
        ("eqx.partition", "nnx.split"),
        ("eqx.combine", "nnx.merge"),
        ("eqx.tree_at", "[...] = "),
        ("eqx.nn.inference_mode", "nnx.view"),
        ("eqx.nn.inference_mode", ".eval()"),
        ("eqx.nn.make_with_state", "Counter()"),
        ("eqx.Partial", "nnx.cached_partial"),
        ("eqx.filter_vmap", "nnx.vmap"),
        ("eqx.nn.Shared", "[layer, layer]"),
        ("eqx.tree_serialise_leaves", "ocp.StandardCheckpointer"),
        ("eqx.filter_eval_shape", "nnx.eval_shape"),
        ("jax.nn.initializers", "nnx.initializers"),
        ("eqx.field(static=True)", "self.exponent = exponent"),
        ("eqx.field(static=True)", "nnx.static"),
        ("eqx.apply_updates", "nnx.Optimizer"),
        ("eqx.tree_pformat", "repr("),
        ("eqx.error_if", "nnx.checkify"),
        ("eqx.filter_shard", "out_sharding="),
    ],
)
def test_what_people_ask_for_is_in_a_row(equinox, flax):
    assert any(equinox in row.equinox and flax in row.flax for row in ROWS)


# --- defaults ---------------------------------------------------------------


def missing_defaults(rows) -> set[tuple[str, str]]:
    """Returns the defaults that differ and that no row is about."""
    listed = {pair for row in rows for pair in row.defaults}
    return layer_defaults.pairs(LAYERS.values()) - listed


def test_every_default_that_differs_is_in_a_row():
    assert missing_defaults(ROWS) == set()


def test_a_default_that_no_row_is_about_is_found():
    rows = [row for row in ROWS if "epsilon" not in row.want]
    assert missing_defaults(rows) == {
        (f"{norm}.eps", f"{norm}.epsilon")
        for norm in ("LayerNorm", "RMSNorm", "GroupNorm")
    }


def test_listed_defaults_differ():
    for pair in {pair for row in ROWS for pair in row.defaults}:
        equinox, flax = map(layer_defaults.find, LIBRARIES, pair)
        assert equinox.shown != flax.shown, pair


@pytest.mark.parametrize("name", ["LayerNorm.epsilon", "Layer.eps", "eps"])
def test_an_argument_that_does_not_exist_is_an_error(name, assert_raises):
    assert_raises(
        functools.partial(layer_defaults.find, "equinox", name),
        ValueError,
        f"argument of a layer of equinox: got '{name}', expected .*",
    )


# --- the page ---------------------------------------------------------------


def test_the_page_shows_every_row(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("dictionary_pages").pages()["dictionary.md"]
    for section in SECTIONS:
        assert f"({section.name})=\n## {section.title}\n" in page
        assert f"[{section.title}](#{section.name})" in page
    for row in ROWS:
        assert f"({row.name})=\n### {row.want}\n" in page
        cells = " | ".join(f"`{brief}`" for brief in row.brief)
        assert f"| [{row.want}](#{row.name}) | {cells} |\n" in page
        for library in LIBRARIES:
            assert getattr(row, library).strip() in page
        assert row.note in page
    assert "| `LayerNorm(eps=1e-05)` | `LayerNorm(epsilon=1e-06)` |" in page
    assert "| `Dropout(p=0.5)` | `Dropout(rate)` |" in page


def test_links_between_rows_lead_somewhere():
    anchors = {row.name for row in ROWS}
    for row in ROWS:
        assert set(re.findall(r"\(#([\w-]+)\)", row.note)) <= anchors
        for page in re.findall(r"\(([\w/]+\.md)\)", row.note):
            assert (DOCS / page).is_file()
