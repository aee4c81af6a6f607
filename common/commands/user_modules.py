"""Keeps the user's modules separate from the packages of this project.

Python holds one module of each name. `common`, `impl_equinox` and `impl_flax`
are this project's; a user may well have a folder of one of these names. All
other modules are found in the working directory first, as Python does it.
"""

import builtins
import contextlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import common
from common.registry import IMPLS

PROJECT_PACKAGES = ("common", *IMPLS)
HOME = pathlib.Path(common.__file__).resolve().parents[1]
"""The folder that holds the packages of this project."""


class NameClashError(ImportError):
    """A module of the user has the name of one that is already imported."""


class _ProjectPackages(importlib.abc.MetaPathFinder):
    """Finds the packages of this project in `HOME` and nowhere else."""

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in PROJECT_PACKAGES:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [str(HOME)])


_FINDER = _ProjectPackages()


def pin_project_packages() -> None:
    """Imports the packages of this project from `HOME` from now on.

    Otherwise a folder `impl_flax` in the working directory would replace the
    Flax backend.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def search_working_directory() -> None:
    """Lets Python find modules in the working directory, as scripts do."""
    pin_project_packages()
    folder = str(pathlib.Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def require_no_clash(name: str, module: str) -> None:
    """Checks that importing a module imports the one the user means.

    Args:
        name: what the user typed, for the message.
        module: the dotted name of the module.

    Raises:
        NameClashError: if the working directory has a module of this name
            and Python would import another one.
    """
    theirs = _in_working_directory(module)
    if theirs is None:
        return
    top = module.partition(".")[0]
    other = HOME / top if top in PROJECT_PACKAGES else _loaded_from(top)
    if other is not None and not _is_same(other, theirs):
        raise NameClashError(
            f"function {name!r}: got {theirs}, whose name is taken by the "
            f"module {top!r} in {other.parent}, expected "
            f"{_expected_and_fix(top, module)}"
        )


@contextlib.contextmanager
def refuse_clashes() -> Iterator[None]:
    """Refuses `import common` in the user's files if they have their own.

    The name is already taken by this project, so that Python would hand out
    the wrong package without a word.
    """
    folder = pathlib.Path.cwd()
    original = builtins.__import__

    def checked_import(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        top = name.partition(".")[0]
        if level == 0 and top in PROJECT_PACKAGES:
            file = (globals or {}).get("__file__")
            theirs = _in_working_directory(name, fromlist or ())
            if theirs is not None and _is_users(file, folder):
                raise NameClashError(
                    f"{file}: got an import of {name!r}, which is {theirs} "
                    f"and also a package of this project in {HOME}, expected "
                    f"{_expected_and_fix(top, name)}"
                )
        return original(name, globals, locals, fromlist, level)

    builtins.__import__ = checked_import
    try:
        yield
    finally:
        builtins.__import__ = original


def _in_working_directory(
    module: str, names: Sequence[str] = ()
) -> pathlib.Path | None:
    """Returns the user's file or folder of a module, if there is one.

    A folder without `__init__.py` counts if it has the submodule: Python
    prefers installed packages to it, and data folders often have such names.

    Args:
        module: the dotted name.
        names: what is imported from it, which may be submodules.
    """
    folder = pathlib.Path.cwd()
    top = module.partition(".")[0]
    package, file = folder / top, folder / f"{top}.py"
    if top in PROJECT_PACKAGES and _is_same(HOME / top, package):
        return None
    if (package / "__init__.py").is_file():
        return package
    if file.is_file():
        return file
    for dotted in (module, *(f"{module}.{name}" for name in names)):
        path = folder.joinpath(*dotted.split("."))
        if "." in dotted and (
            path.is_dir() or path.with_name(f"{path.name}.py").is_file()
        ):
            return package
    return None


def _loaded_from(top: str) -> pathlib.Path | None:
    """Returns the file or folder of a top-level module that is imported."""
    module = sys.modules.get(top)
    paths = list(getattr(module, "__path__", []))
    if paths:
        return pathlib.Path(paths[0])
    file = getattr(module, "__file__", None)
    return None if file is None else pathlib.Path(file)


def _is_same(first: pathlib.Path, second: pathlib.Path) -> bool:
    return first.resolve() == second.resolve()


def _is_users(file: str | None, folder: pathlib.Path) -> bool:
    """Whether a file is in the working directory and not this project's."""
    if file is None:
        return False
    path = pathlib.Path(file).resolve()
    return path.is_relative_to(folder.resolve()) and not any(
        path.is_relative_to(HOME / name) for name in PROJECT_PACKAGES
    )


def _is_checkout(folder: pathlib.Path) -> bool:
    """Whether a folder holds the source of this project."""
    try:
        text = (folder / "pyproject.toml").read_text()
    except (OSError, UnicodeDecodeError):
        return False
    return 'name = "eqx-vs-nnx"' in text and all(
        (folder / name).is_dir() for name in PROJECT_PACKAGES
    )


def _expected_and_fix(top: str, module: str) -> str:
    """Returns the end of the message of a clash.

    Args:
        top: the name that is taken.
        module: the dotted name of the user's module.
    """
    folder = pathlib.Path.cwd()
    if top in PROJECT_PACKAGES and _is_checkout(folder):
        return (
            "one copy of this project, because the working directory is a "
            "checkout of it and the command runs an installed copy. Run "
            "`pip install -e .` here to use the checkout."
        )
    fix = f"Rename your {top!r}"
    if folder.name.isidentifier():
        fix += (
            ", or, if your code imports it relatively, run the command from "
            f"the parent folder and write {folder.name}.{module}"
        )
    return (
        "another name, because Python imports only one module called "
        f"{top!r}. {fix}."
    )
