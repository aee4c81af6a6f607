"""Files are written whole and durably, or not at all."""

import errno
import os
import pathlib
import resource
import tempfile

import pytest

from common.files import FIXES, write_bytes, write_text


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    """An old file."""
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    return path


def check_old(path: pathlib.Path) -> None:
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_text_ends_in_one_newline(path):
    write_text(path, "two\n\n")
    assert path.read_text() == "two\n"
    assert os.listdir(path.parent) == [path.name]


def test_permissions_and_links_are_kept(path):
    path.chmod(0o640)
    link = path.with_name("link.txt")
    link.symlink_to(path)
    write_bytes(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_file_and_the_name_are_on_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda x: synced.append(os.fstat(x)))
    write_bytes(path, b"new")
    of_file, of_folder = synced
    assert of_file.st_ino == path.stat().st_ino
    assert of_folder.st_ino == path.parent.stat().st_ino


def test_a_write_that_ends_midway_keeps_the_old_file(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_bytes(path, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert str(caught.value) == (
        f"file {str(path)!r}: got the error 'file too large', expected a "
        "file that can be written. Choose another file."
    )
    check_old(path)


@pytest.mark.parametrize("number", FIXES)
@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_an_error_names_the_path_of_the_user(number, call, path, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "temporary.part")

    monkeypatch.setattr(tempfile if call == "mkstemp" else os, call, fail)
    with pytest.raises(OSError) as caught:
        write_bytes(path, b"new")
    assert type(caught.value) is type(OSError(number, ""))
    assert caught.value.errno == number
    assert str(caught.value) == (
        f"file {str(path)!r}: got the error {os.strerror(number).lower()!r}, "
        f"expected a file that can be written. {FIXES[number]}"
    )
    check_old(path)


def test_an_interrupt_keeps_the_old_file(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    check_old(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_device_is_written_to():
    write_bytes("/dev/null", b"new")
    with pytest.raises(OSError, match="Free some space"):
        write_bytes("/dev/full", b"new")
