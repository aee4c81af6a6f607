"""The configuration of Sphinx."""

import pathlib
import sys
from importlib import metadata

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import generate  # noqa: E402

project = "eqx-vs-nnx"
author = "the eqx-vs-nnx authors"
release = metadata.version("eqx-vs-nnx")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_generated"]
# Leave straight quotes alone: many of them are code.
smartquotes_action = "D"
# In docstrings, single backticks mark code.
default_role = "code"

myst_enable_extensions = ["colon_fence", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"versions": generate.versions()}

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints_format = "short"
maximum_signature_line_length = 120
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = False
napoleon_custom_sections = [("Reference", "References")]

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_js_files = [
    ("tables.js", {"type": "module"}),
    ("dictionary.js", {"defer": "defer"}),
]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_copyright = False


def setup(app):
    app.connect(
        "builder-inited", lambda app: generate.write(DOCS / "_generated")
    )
