"""JSON and text files."""

import dataclasses
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
import pytest

from common.rendering.files import plain, to_json, write_json, write_text


class Pair(NamedTuple):
    left: float
    right: float


@dataclasses.dataclass
class Row:
    pair: Pair
    path: pathlib.Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (np.float32("nan"), "nan"),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.arange(2), [0, 1]),
        ({3: (None, "x")}, {"3": [None, "x"]}),
        ({"b", "a"}, ["a", "b"]),
        (Row(Pair(1.0, np.inf), pathlib.Path("a")), None),
    ],
)
def test_values_become_what_json_has(value, expected):
    if expected is None:
        expected = {"pair": {"left": 1.0, "right": "inf"}, "path": "a"}
    assert plain(value) == expected

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(to_json(value), parse_constant=refuse) == expected


def test_file_ends_in_one_newline(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert (tmp_path / "a.json").read_text() == '{\n "x": 1\n}\n'
    write_text(tmp_path / "a.txt", "two\n\n")
    assert (tmp_path / "a.txt").read_text() == "two\n"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.txt"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_and_links_are_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o640
