"""The files that commands read and write, checked before the work."""

import pathlib

import rich.console

from common.files import write_text


def require_writable(path: pathlib.Path | None, suffix: str = "") -> None:
    """Checks that a file can have this name.

    Args:
        path: the file, or None if the user asked for none.
        suffix: the ending that the name must have.

    Raises:
        ValueError: if the path is a folder, lies in no folder, or has
            a different ending.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(
            f"file: got the folder {str(path)!r}, expected a file. Add a file "
            "name to it."
        )
    if not path.name.endswith(suffix):
        raise ValueError(
            f"file: got {str(path)!r}, expected a name that ends in "
            f"{suffix!r}. Write {str(path.with_suffix(suffix))!r}."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"file: got {str(path)!r}, expected a file in a folder that "
            f'exists. Run `mkdir -p "{path.parent}"` first.'
        )


def require_exists(path: pathlib.Path | None, what: str, fix: str) -> None:
    """Checks that a file to read exists.

    Args:
        path: the file, or None if the user named none.
        what: what the file is for, such as the name of an option.
        fix: what to do if there is none, besides correcting the path.

    Raises:
        ValueError: if there is no such file.
    """
    if path is not None and not path.exists():
        raise ValueError(
            f"{what}: got {str(path)!r}, expected a file that exists. {fix}, "
            "or correct the path."
        )


def write(
    path: pathlib.Path, text: str, console: rich.console.Console
) -> None:
    """Writes a text file and says so."""
    write_text(path, text)
    console.print(f"Wrote {path}.", soft_wrap=True)
