"""The source files that the conventions are checked on."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("common", "impl_equinox", "impl_flax")
IMPLS = ("impl_equinox", "impl_flax")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def label(path: pathlib.Path) -> str:
    """Returns the path of a file relative to the repository."""
    return path.relative_to(ROOT).as_posix()


def tracked_files() -> list[pathlib.Path]:
    """Returns every text file that git would commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    paths = (ROOT / name for name in listed)
    return [p for p in paths if p.is_file() and b"\0" not in p.read_bytes()]


each_source = pytest.mark.parametrize("path", SOURCES, ids=label)
