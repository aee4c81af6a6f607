"""`docs`: builds the pages of the documentation and serves them."""

import argparse
import functools
import http.server
import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import rich.console

ABOUT = """
Build the documentation if needed, and serve it on this machine.

The pages are built again if a source file has changed since. All figures on
them are measured during the build, which takes about three minutes the first
time. The command needs a checkout and the packages of the extra `docs`. Stop
it with Control-C.
"""
EXAMPLES = """
{program} docs
{program} docs --port 8080
{program} docs --build-only
"""

PACKAGES = ("sphinx", "furo", "myst_nb", "sphinx_copybutton")
"""Some of the packages that the extra `docs` installs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `docs` to its parser."""
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="the port on localhost; 0 takes any free one (default: 8000)",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="build the pages even if no source file has changed",
    )
    parser.add_argument(
        "--build-only",
        action="store_true",
        help="build the pages and exit; the status is 1 if the build failed",
    )


def run(options: argparse.Namespace, console: rich.console.Console) -> int:
    """Runs `docs`."""
    if not 0 <= options.port < 2**16:
        raise ValueError(
            f"--port: got {options.port}, expected a number from 0 to "
            f"{2**16 - 1}. Leave --port out to use 8000."
        )
    root = find_checkout(
        [pathlib.Path(__file__).parents[2], pathlib.Path.cwd()]
    )
    site = root / "docs" / "_build" / "html"
    if options.rebuild or is_outdated(site, root):
        require_packages(PACKAGES)
        console.print("Building the pages. This takes some minutes.")
        status = build(root, site)
        if status != 0:
            console.print("The build failed.", style="red")
            return 1
    if options.build_only:
        console.print(f"The pages are in {site}.")
        return 0
    with server(site, options.port) as serving:
        console.print(f"Serving http://localhost:{serving.server_port}/")
        console.print("Stop with Control-C.", style="dim")
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            console.print("Stopped.")
    return 0


def find_checkout(candidates: Sequence[pathlib.Path]) -> pathlib.Path:
    """Returns the first folder that is a checkout of this project.

    Raises:
        ValueError: if there is none, as for an installed package.
    """
    for folder in candidates:
        if (folder / "docs" / "conf.py").exists() and (
            folder / "common" / "cli.py"
        ).exists():
            return folder
    raise ValueError(
        f"docs: got {candidates[-1]}, expected a checkout of this project, "
        "because an installed package has no pages. Clone the repository and "
        "run the command there."
    )


def is_outdated(site: pathlib.Path, root: pathlib.Path) -> bool:
    """Whether the pages are missing, or older than a file they come from."""
    index = site / "index.html"
    if not index.exists():
        return True
    built = index.stat().st_mtime
    generated = {"_build", "_generated", "__pycache__"}
    sources = (
        path
        for folder in ("docs", "common", "impl_equinox", "impl_flax")
        for path in (root / folder).rglob("*.*")
        if not generated & set(path.parts)
    )
    return any(path.stat().st_mtime > built for path in sources)


def require_packages(names: Sequence[str]) -> None:
    """Checks that the packages that build the pages are installed.

    Raises:
        ValueError: if one is missing.
    """
    missing = [name for name in names if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(
            f"docs: got no package {', '.join(missing)}, expected those of "
            'the extra `docs`. Install them with pip install ".[docs]".'
        )


def build(root: pathlib.Path, site: pathlib.Path) -> int:
    """Builds the pages, and returns the exit status of Sphinx."""
    words = [sys.executable, "-m", "sphinx", "-q", "-b", "html"]
    done = subprocess.run(
        [*words, str(root / "docs"), str(site)], cwd=root, check=False
    )
    if done.returncode == 0:
        # Sphinx leaves a page alone that has not changed.
        (site / "index.html").touch()
    return done.returncode


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without printing a line for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


def server(site: pathlib.Path, port: int) -> http.server.ThreadingHTTPServer:
    """Returns a server of the pages, on localhost only.

    Raises:
        ValueError: if another program uses the port.
    """
    handler = functools.partial(QuietHandler, directory=site)
    try:
        return http.server.ThreadingHTTPServer(("localhost", port), handler)
    except OSError as error:
        raise ValueError(
            f"--port: got {port}, expected a free port ({error.strerror}). "
            "Pass another one, or 0 for any free port."
        ) from error
