"""The files around the code: CI, hooks, typing and the wheel."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.conftest import QUICK_FLAGS
from tests.conventions.sources import PACKAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def hook_version(text: str, repository: str) -> str:
    """Returns the version of a pre-commit repository."""
    (found,) = re.findall(rf"repo: \S+/{repository}\n\s+rev: v(\S+)", text)
    return found


def pinned_version(requirements: list[str], name: str) -> str:
    """Returns the version that an exact requirement pins."""
    (found,) = [
        requirement.removeprefix(f"{name}==")
        for requirement in requirements
        if requirement.startswith(f"{name}==")
    ]
    return found


def test_ci_builds_the_pages_with_the_flags_of_the_tests():
    """Otherwise the build reads nothing from the cache of the tests."""
    script = (ROOT / ".ci" / "run").read_text()
    flags = re.findall(r"--xla_\w+=\w+", script)
    assert flags == QUICK_FLAGS.split()


def test_hooks_use_the_pinned_ruff():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = pinned_version(PROJECT["optional-dependencies"]["dev"], "ruff")
    assert hook_version(text, "ruff-pre-commit") == pinned


def test_versions_of_hooks_and_requirements_are_found():
    text = "- repo: https://github.com/x/tool-hook\n  rev: v1.2\n"
    assert hook_version(text, "tool-hook") == "1.2"
    assert pinned_version(["a>=1", "tool==1.3"], "tool") == "1.3"


def claimed_versions(classifiers: list[str]) -> list[str]:
    """Returns the Python versions of a project's classifiers."""
    text = "\n".join(classifiers)
    return re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", text, re.M
    )


def test_ci_runs_every_python_version_that_is_claimed():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (versions,) = re.findall(r"python: \[(.*)\]", workflow)
    claimed = claimed_versions(PROJECT["classifiers"])
    assert re.findall(r"[\d.]+", versions) == claimed
    assert PROJECT["requires-python"] == f">={claimed[0]}"
    assert "bash .ci/run" in workflow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Builds the wheel and returns the names of its files."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
        + [str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").read_text() == ""


def test_the_wheel_holds_the_three_packages(wheel):
    for package in PACKAGES:
        assert f"{package}/py.typed" in wheel
    assert "common/rendering/templates/diff.html.jinja" in wheel
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith("info")} == set(PACKAGES)


@pytest.mark.xdist_group("one group")
def test_a_group_of_tests_runs_in_one_worker(request):
    """With pytest 9.1, pytest-xdist 3.8 silently ignores groups."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@one group")
