"""The inputs of two sides: one list, two lists, or a transpose."""

import argparse

import numpy as np
import pytest

from common.commands import batches


def read(*words: str):
    parser = argparse.ArgumentParser()
    batches.add_options(parser)
    return batches.read(
        argparse.Namespace(seed=0, **vars(parser.parse_args(words)))
    )


def test_both_sides_get_the_inputs():
    left, right = read("--inputs", "shape=4,3", "shape=4")
    assert left is right and [x.shape for x in left] == [(4, 3), (4,)]


@pytest.mark.parametrize("first", ["inputs", "left-inputs"])
def test_a_transpose_has_the_same_numbers(first):
    left, right = read(
        f"--{first}", "shape=4,1,8,6", "--right-inputs", "transpose=0,2,3,1"
    )
    assert right[0].shape == (4, 8, 6, 1)
    assert (left[0].transpose(0, 2, 3, 1) == right[0]).all()


def test_the_left_side_may_be_the_transposed_one(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, a=np.ones((2, 3)), b=np.arange(6).reshape(2, 3))
    left, right = read(
        "--right-inputs",
        str(file),
        "--left-inputs",
        "shape=5",
        "transpose=1,0",
    )
    assert left[0].shape == (5,) and (left[1] == right[1].T).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--inputs: got none, expected the inputs of both sides"),
        ("--left-inputs shape=2", "--right-inputs: got none"),
        ("--inputs shape=x", "--inputs: got 'shape=x', expected integers"),
        ("--inputs transpose=0", "--inputs: got 'transpose=0' as array 1"),
        (
            "--left-inputs transpose=0 --right-inputs transpose=0",
            "--left-inputs: got 'transpose=0' as array 1",
        ),
        (
            "--inputs shape=2,3 --right-inputs transpose=0,0",
            "expected an order of the 2 axes",
        ),
        (
            "--inputs shape=2 --right-inputs shape=2 transpose=0",
            "--right-inputs: got 'transpose=0' as array 2",
        ),
        (
            "--inputs no.npz",
            "--inputs: got 'no.npz', expected a file that exists. Write",
        ),
    ],
)
def test_wrong_inputs_are_refused(words, message):
    with pytest.raises(ValueError) as caught:
        read(*words.split())
    assert message in str(caught.value)


def test_an_archive_without_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="--inputs: got no arrays"):
        read("--inputs", str(tmp_path / "x.npz"))
