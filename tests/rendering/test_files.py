"""JSON files."""

import dataclasses
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
import pytest

from common.rendering.files import plain, to_json, write_json


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
    assert os.listdir(tmp_path) == ["a.json"]
