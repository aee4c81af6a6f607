"""The pages that are notebooks: marked lines, and the file to download."""

import json
import pathlib
import re
from typing import Any


def mark_lines(app: Any, doctree: Any) -> None:
    """Marks the lines that a cell's option `:emphasize-lines:` lists.

    MyST-NB keeps the options of a cell, and does not know this one.

    Args:
        app: unused; Sphinx passes it.
        doctree: a page.
    """
    del app
    for cell in doctree.findall(lambda node: node.tagname == "container"):
        listed = cell.get("cell_metadata", {}).get("emphasize-lines")
        if listed is None:
            continue
        blocks = cell.findall(lambda node: node.tagname == "literal_block")
        source = next(blocks)
        source["highlight_args"] = {"hl_lines": line_numbers(str(listed))}


def line_numbers(listed: str) -> list[int]:
    """Returns the numbers of lines such as `"1,4-6"`."""
    numbers = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def write_downloads(app: Any, doctree: Any) -> None:
    """Rewrites an executed notebook for a reader who has only that file.

    MyST-NB writes a page that it has executed as `.ipynb`, where the links to
    other pages and to the file itself lead nowhere.

    Args:
        app: the application.
        doctree: a page.
    """
    del doctree
    folder = pathlib.Path(app.env.mystnb_config.output_folder)
    path = folder / f"{app.env.docname}.ipynb"
    if not path.exists():
        return
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = standalone("".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
    for name in ("hide-toc", "source_map"):
        notebook["metadata"].pop(name, None)
    path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def standalone(text: str) -> str:
    """Returns Markdown without roles and without links to other pages."""
    kept = [
        block for block in text.split("\n\n") if "{nb-download}" not in block
    ]
    return re.sub(
        r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", "\n\n".join(kept)
    )
