"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any

FIXES = {
    errno.ENOSPC: "Free some space, or choose another disk.",
    errno.EDQUOT: "Free some space, or choose another disk.",
    errno.EACCES: "Change its permissions, or choose another folder.",
    errno.EPERM: "Change its permissions, or choose another folder.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.ENOENT: "Create its folder first.",
    errno.ENOTDIR: "Choose a path that does not lead through a file.",
    errno.EISDIR: "Add a file name to it.",
}
"""What to do when a file cannot be written, by the number of the error."""


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file that ends in one newline; see `write_bytes`."""
    write_bytes(path, (text.rstrip("\n") + "\n").encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file from its bytes; see `write_chunks`."""
    write_chunks(path, (data,))


def write_chunks(path: str | os.PathLike[str], chunks: Iterable[Any]) -> None:
    """Writes a file that is complete and on the disk, or changes nothing.

    The data goes to a temporary file in the same folder, which then replaces
    `path`. An interrupt, a crash or a full disk leaves either the old file or
    the new one. A link keeps pointing to the same file.

    Args:
        path: the file to write.
        chunks: its bytes in order, of which one is needed at a time.

    Raises:
        OSError: naming `path` and what to do, if it cannot be written.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout
            with path.open("wb") as file:
                file.writelines(chunks)
        else:
            _replace(path.resolve(), chunks)
    except OSError as error:
        # Python's own text would name the temporary file.
        what = f"file {str(path)!r}"
        raise explain(error, what, "a file that can be written") from error


def explain(error: Exception, what: str, expected: str) -> OSError:
    """Returns an error that says what could not be written, and what to do.

    Args:
        error: of the operating system, or of a library that writes.
        what: names what the user asked for.
        expected: what would have been right.
    """
    is_system = isinstance(error, OSError)
    number = (error.errno or 0) if is_system else 0
    text = (error.strerror if is_system else "") or str(error)
    kind = expected.split()[1]
    fix = FIXES.get(number, f"Choose another {kind}.")
    named = (type(error) if is_system else OSError)(
        f"{what}: got the error {text.lower()!r}, expected {expected}. {fix}"
    )
    named.errno = number or None
    return named


def _replace(path: pathlib.Path, chunks: Iterable[Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read.
        mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes the new name durable, where folders can be opened."""
    with contextlib.suppress(PermissionError):  # Windows, unreadable folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
