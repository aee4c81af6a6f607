"""The configuration of Sphinx."""

import os
import pathlib
import re
import sys
from importlib import metadata

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
# The kernel of a notebook imports this checkout, and caches what it compiles.
os.environ |= {
    "PYTHONPATH": os.pathsep.join(
        [str(DOCS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    ),
    "JAX_COMPILATION_CACHE_DIR": str(DOCS.parent / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

import generate  # noqa: E402
import notebooks  # noqa: E402

from common import agreement  # noqa: E402

project = "eqx-vs-nnx"
author = "the eqx-vs-nnx authors"
release = metadata.version("eqx-vs-nnx")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
# MyST-NB writes executed notebooks to `jupyter_execute`, beside the output.
exclude_patterns = ["_build", "_generated", "jupyter_execute"]
# Leave straight quotes alone: many of them are code.
smartquotes_action = "D"
# In docstrings, single backticks mark code.
default_role = "code"

myst_enable_extensions = ["colon_fence", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {
    "versions": generate.versions(),
    "amplified": agreement.AMPLIFIED,
}

# Pages with cells are executed in every build, and an error fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

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
    ("filter.js", {"defer": "defer"}),
]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_copyright = False


# What jaxtyping makes of `PRNGKeyArray`, and the modules before a type.
KEY = re.compile(
    r"~?(?:\w+\.)*Key\[~?jaxlib\._jax\.Array, ''\]"
    r"(?: \| ~?(?:\w+\.)*UInt32\[~?jaxlib\._jax\.Array, '\d'\])+"
)
MODULE = re.compile(r"~?\b(?:[a-z_]\w*\.)+(?=[A-Z])")


def shorten_signature(app, what, name, thing, options, signature, returned):
    """Writes the types in a signature by the names that they have in code."""
    return tuple(
        text and KEY.sub("PRNGKeyArray", text)
        for text in (signature, returned)
    )


def shorten_attributes(app, what, name, thing, options, lines):
    """Does the same with the types of attributes."""
    for i, line in enumerate(lines):
        if line.strip().startswith(":type:"):
            lines[i] = MODULE.sub("", KEY.sub("PRNGKeyArray", line))


def setup(app):
    app.connect("autodoc-process-signature", shorten_signature)
    # After Napoleon.
    app.connect("autodoc-process-docstring", shorten_attributes, priority=600)
    app.connect(
        "builder-inited", lambda app: generate.write(DOCS / "_generated")
    )
    app.connect("doctree-read", notebooks.mark_lines)
    app.connect("doctree-read", notebooks.write_downloads)
