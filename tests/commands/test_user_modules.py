"""The user's modules beside `common`, `impl_equinox` and `impl_flax`."""

import builtins
import pathlib
import sys

import pytest

from common import cli
from common.commands import arguments, user_modules
from tests.commands.processes import run_module, run_script
from tests.conftest import one_in

MODEL = """
import jax.numpy as jnp

def f(x):
    return jnp.tanh(x) + 1

def g(x):
    return jnp.tanh(x) + 2
"""
# Two modules that compute the same. Naming their paths needs both backends.
LINEAR = """
import equinox as eqx
import jax
from flax import nnx

f = eqx.nn.Linear(3, 3, key=jax.random.key(0))
g = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
g.kernel[...] = f.weight.T
g.bias[...] = f.bias
"""
INPUTS = ["--inputs", "shape=2,3"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a user with a package called `common`."""
    project = tmp_path / "project"
    package = project / "common"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(MODEL)
    (project / "mine.py").write_text(MODEL)
    monkeypatch.chdir(project)
    return project


@pytest.fixture(autouse=True)
def forget_modules(monkeypatch):
    """Forgets the modules and the folders that a test has added."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"mine", "project", "uses", "deep"}:
            del sys.modules[name]


# --- in real processes ------------------------------------------------------


def test_the_console_script_runs_beside_a_folder_named_common(folder):
    done = run_script("diff", "mine:f", "mine:g", *INPUTS, cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "mine.py:5 f" in done.stdout and "mine.py:8 g" in done.stdout


def test_python_runs_the_users_package_instead(folder):
    """This is how Python searches, so the documentation says it."""
    done = run_module("diff", "mine:f", "mine:g", *INPUTS, cwd=folder)
    assert done.returncode == 1
    assert "No module named common.__main__" in done.stderr


def test_a_function_in_a_package_named_common_is_refused(folder):
    """`common.models` is a module of this project too, without an `f`."""
    done = run_script("diff", "common.models:f", "mine:g", *INPUTS, cwd=folder)
    assert done.returncode == 2
    assert "error: function 'common.models:f': got" in done.stderr
    assert "write project.common.models" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_advised_name_works(folder):
    words = ["diff", "project.common.models:f", "project.mine:f", *INPUTS]
    done = run_script(*words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", one_in(2, ["impl_equinox", "impl_flax"]))
def test_our_backend_is_used_beside_a_folder_of_its_name(folder, name):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise SystemExit(7)")
    (folder / "model.py").write_text(LINEAR)
    words = ["diff", "model:f", "model:g", "--inputs", "shape=3"]
    done = run_script(*words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


# --- in this process --------------------------------------------------------


def test_the_users_modules_come_first(folder):
    found = arguments.function("mine:f")
    assert found.__code__.co_filename == str(folder / "mine.py")


@pytest.mark.parametrize(
    "line",
    [
        "import common",
        "import common.models",
        "from common import models",
        "from common.models import f",
    ],
)
def test_a_users_file_that_imports_its_own_common_is_refused(
    folder, line, capsys
):
    (folder / "uses.py").write_text(f"{line}\n{MODEL}")
    assert cli.main(["diff", "uses:f", "mine:g", *INPUTS]) == 2
    message = capsys.readouterr().err
    assert "uses.py: got an import of 'common" in message
    assert "Rename your 'common'" in message


def test_an_import_while_the_function_runs_is_refused(folder, capsys):
    (folder / "deep.py").write_text(
        "def f(x):\n    from common.models import f\n    return f(x)\n"
    )
    assert cli.main(["diff", "deep:f", "mine:g", *INPUTS]) == 2
    assert "deep.py: got an import of" in capsys.readouterr().err


def test_imports_are_as_before_afterwards(folder):
    original = builtins.__import__
    with user_modules.refuse_clashes():
        assert builtins.__import__ is not original
    assert builtins.__import__ is original


def test_a_users_file_may_import_this_project(tmp_path, monkeypatch):
    """A folder that happens to be called `common` is no package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "photos.txt").write_text("")
    (tmp_path / "mine.py").write_text(
        f"from common import build\nfrom common.models import specs\n{MODEL}"
    )
    assert cli.main(["diff", "mine:f", "mine:f", *INPUTS]) == 0


def test_a_folder_without_init_counts_if_it_has_the_module(folder, capsys):
    (folder / "common" / "__init__.py").unlink()
    assert cli.main(["diff", "common.models:f", "mine:g", *INPUTS]) == 2
    assert "whose name is taken" in capsys.readouterr().err
    # It does not have this one, so that it is ours.
    assert callable(
        arguments.function("common.models.stateful_mlp:StatefulMLP")
    )


def test_a_module_with_the_name_of_a_loaded_one_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rich.py").write_text(MODEL)
    with pytest.raises(user_modules.NameClashError, match="taken by the mod"):
        arguments.function("rich:f")


def test_a_file_named_common_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common.py").write_text(MODEL)
    with pytest.raises(user_modules.NameClashError, match="Rename your"):
        arguments.function("common:f")


def test_this_checkout_does_not_clash_with_itself(monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
    assert callable(arguments.function("common:build"))


def test_another_copy_of_this_project_needs_an_editable_install(
    folder, capsys
):
    for name in user_modules.PROJECT_PACKAGES:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text('name = "eqx-vs-nnx"\n')
    (folder / "uses.py").write_text(f"from common.models import f\n{MODEL}")
    for module in ("uses", "common.models"):
        assert cli.main(["diff", f"{module}:f", "mine:g", *INPUTS]) == 2
        message = capsys.readouterr().err
        assert "Run `pip install -e .` here" in message
        assert "Rename" not in message
