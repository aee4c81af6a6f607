"""The source files that the conventions are checked on."""

import pathlib
import subprocess
from collections.abc import Callable, Iterable

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


Check = Callable[[pathlib.Path], None]


def for_each(paths: Iterable[pathlib.Path]) -> Callable[[Check], Callable]:
    """Makes one test of a check of each file.

    A test for each file and check would be several thousand, whose reports
    take longer than the checks. The message names every file that fails.
    """
    paths = list(paths)

    def decorate(check: Check) -> Callable[[], None]:
        def test() -> None:
            assert paths
            failures = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    failures.append(f"{label(path)}: {error}")
            assert not failures, "\n".join(failures)

        test.__doc__ = check.__doc__
        return test

    return decorate


each_source = for_each(SOURCES)
